//! The Kubernetes API: what it says of our own pod, whether Services still send requests there, and Events.
//!
//! All of it is optional. The API server may be missing, silent or wrong, and the drain goes on. Nothing is asked while
//! the pod serves: the client is made for a drain and dropped after it.

mod endpoints;
mod events;
mod pod;
pub mod reporter;
mod transport;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::PostParams;
use kube::core::ApiResource;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::config::{ConfigErrors, Files};
#[cfg(feature = "tools")]
pub use events::CONTROLLER;
pub use events::{NewEvent, Reason};
#[cfg(feature = "tools")]
pub use pod::OWN_CONTAINER;
#[cfg(test)]
pub use pod::{Deletion, Probes};
pub use pod::{OwnPod, Pod};
use transport::Transport;

/// The longest that one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(1);

/// Where the kubelet mounts a service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Flags of the Kubernetes API.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Kubernetes")]
pub struct Args {
    /// auto uses the API where a service account is mounted, off never
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub kube: String,

    /// The least wait starts only when this pod has left the Service's EndpointSlices. Repeatable
    #[arg(long, value_name = "NAME")]
    pub service: Vec<String>,

    /// Where the service account is mounted
    #[arg(long, value_name = "DIR", default_value = SERVICE_ACCOUNT)]
    pub service_account: PathBuf,
}

/// What may be asked, checked.
#[derive(Debug, Default)]
pub struct Settings {
    /// How to reach the API; nothing where it is not to be asked.
    pub access: Option<Access>,
    /// Services that send requests to this pod.
    pub services: Vec<String>,
    /// Why the API is not asked, where that may surprise.
    pub warning: Option<String>,
}

/// How to reach the API, and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    host: String,
    port: u16,
    service_account: PathBuf,
    namespace: String,
    pod: String,
    /// None where the environment does not have it.
    uid: Option<String>,
}

impl Args {
    /// Checks the flags. The environment says where the API is, as in every pod, and which pod this is: `POD_NAME`,
    /// `POD_NAMESPACE` and `POD_UID`, by the downward API.
    pub fn validate(
        &self,
        environment: &BTreeMap<String, String>,
        errors: &mut ConfigErrors,
    ) -> Settings {
        let on = match self.kube.as_str() {
            "auto" => true,
            "off" => false,
            other => {
                errors.add("kube", other, "write auto or off");
                return Settings::default();
            }
        };
        for name in &self.service {
            if !is_label(name) {
                let message = "it is no Service's name; write the name alone, such as shop";
                errors.add("service", name, message);
            } else if !on {
                let message = "its EndpointSlices are in the Kubernetes API; leave out --kube=off";
                errors.add("service", name, message);
            }
        }
        let asked = on && errors.files() == Files::Here;
        let (access, missing) = match asked.then(|| self.access(environment)) {
            None => (None, None),
            Some(Ok(access)) => (Some(access), None),
            // Without anything of Kubernetes around, nothing is missing.
            Some(Err(Missing::Everything)) if self.service.is_empty() => (None, None),
            Some(Err(missing)) => (None, Some(missing)),
        };
        Settings {
            access,
            services: self.service.clone(),
            warning: missing.map(|missing| {
                format!("the Kubernetes API is not asked, and no Events are written: {missing}")
            }),
        }
    }

    fn access(&self, environment: &BTreeMap<String, String>) -> Result<Access, Missing> {
        let get = |name: &str| {
            (environment.get(name).map(|value| value.trim())).filter(|value| !value.is_empty())
        };
        let (Some(host), true) = (
            get("KUBERNETES_SERVICE_HOST"),
            self.service_account.join("token").is_file(),
        ) else {
            return Err(Missing::Everything);
        };
        let port = get("KUBERNETES_SERVICE_PORT").unwrap_or("443");
        let port = port.parse().map_err(|_| Missing::Port)?;
        let pod = get("POD_NAME").ok_or(Missing::PodName)?.to_owned();
        let mounted = || {
            let text = std::fs::read_to_string(self.service_account.join("namespace")).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let namespace = (get("POD_NAMESPACE").map(str::to_owned))
            .or_else(mounted)
            .ok_or(Missing::Namespace)?;
        Ok(Access {
            host: host.to_owned(),
            port,
            service_account: self.service_account.clone(),
            namespace,
            pod,
            uid: get("POD_UID").map(str::to_owned),
        })
    }
}

/// What is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// No service account, or no API server's address.
    Everything,
    Port,
    PodName,
    Namespace,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Missing::Everything => {
                "no service account is mounted; set automountServiceAccountToken, or leave out --service"
            }
            Missing::Port => "KUBERNETES_SERVICE_PORT is no port",
            Missing::PodName => {
                "the environment has no POD_NAME; set POD_NAME, POD_NAMESPACE and POD_UID by the downward API, or write \
                 --kube=off"
            }
            Missing::Namespace => "the environment has no POD_NAMESPACE; set it by the downward API",
        })
    }
}

/// An RFC 1035 label, as a Service's name is.
fn is_label(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Why a call came to nothing.
#[derive(Debug)]
pub enum Error {
    /// The API server, or what stands in its way, did not answer in time.
    Timeout,
    /// The service account has no permission.
    Forbidden(String),
    /// It answered with an error, or with something that cannot be understood.
    Refused(String),
    /// No connection, or not HTTP or TLS.
    Unreachable(String),
    /// What it says cannot be right.
    Wrong(&'static str),
}

impl Error {
    /// Whether the same call may succeed some seconds later. A permission that is missing stays so, and so does what is wrong.
    pub fn may_pass(&self) -> bool {
        match self {
            Error::Timeout | Error::Refused(_) | Error::Unreachable(_) => true,
            Error::Forbidden(_) | Error::Wrong(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Timeout => {
                let limit = humantime::format_duration(CALL_LIMIT);
                write!(f, "the API server did not answer within {limit}")
            }
            Error::Forbidden(why) => write!(
                f,
                "{why}; bind the pod's service account to a Role that may, or write --kube=off"
            ),
            Error::Refused(why) => write!(f, "the API server refuses: {why}"),
            Error::Unreachable(why) => write!(f, "no connection to the API server: {why}"),
            Error::Wrong(what) => f.write_str(what),
        }
    }
}

impl From<kube::Error> for Error {
    fn from(e: kube::Error) -> Self {
        match e {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Error::Forbidden(format!("{} ({})", status.message, status.code))
            }
            kube::Error::Api(status) => {
                Error::Refused(format!("{} ({})", status.message, status.code))
            }
            kube::Error::Service(e) => Error::Unreachable(with_causes(&*e)),
            kube::Error::HyperError(e) => Error::Unreachable(with_causes(&e)),
            kube::Error::ReadEvents(e) => Error::Unreachable(with_causes(&e)),
            kube::Error::SerdeError(e) => {
                Error::Refused(format!("its answer cannot be understood: {e}"))
            }
            // The rest is of configurations that are read elsewhere; to print them takes a large part of the library.
            _ => Error::Unreachable("an error within gracekeeper".to_owned()),
        }
    }
}

/// An error's words and those of its causes, which the libraries' own words leave out or not.
fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        let more = e.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        cause = e.source();
    }
    text
}

/// Asks the API. Clones share one client.
#[derive(Clone)]
pub struct Cluster {
    access: Arc<Access>,
    client: Arc<Mutex<Option<Client>>>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.access).finish()
    }
}

impl Cluster {
    /// Asks nothing yet.
    pub fn new(access: Access) -> Self {
        Self {
            access: Arc::new(access),
            client: Arc::default(),
        }
    }

    /// The pod's UID, or its name.
    pub fn identity(&self) -> &str {
        (self.access.uid.as_deref()).unwrap_or(&self.access.pod)
    }

    /// Drops the client, and with it the task that it has.
    pub fn close(&self) {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What the API server says of our own pod.
    ///
    /// # Errors
    /// When it says nothing within a second, or something that cannot be.
    pub async fn own_pod(&self) -> Result<OwnPod, Error> {
        let kind = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let namespace = &self.access.namespace;
        let pods: Api<Pod> = Api::namespaced_with(self.client(), namespace, &kind);
        let pod = bounded(pods.get(&self.access.pod)).await?;
        if let Some(uid) = &self.access.uid
            && pod.metadata.uid.as_ref() != Some(uid)
        {
            return Err(Error::Wrong(
                "the API server knows another pod of this name",
            ));
        }
        Ok(OwnPod::new(&pod))
    }

    /// Writes an Event about our own pod.
    ///
    /// # Errors
    /// When it was not taken within a second.
    pub async fn write(&self, new: &NewEvent) -> Result<(), Error> {
        let events: Api<Event> = Api::namespaced(self.client(), &self.access.namespace);
        let event = new.object(&self.access);
        bounded(events.create(&PostParams::default(), &event)).await?;
        Ok(())
    }

    fn client(&self) -> Client {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return client.clone();
        }
        let Access {
            host,
            port,
            service_account,
            namespace,
            ..
        } = &*self.access;
        let transport = Transport::new(host.clone(), *port, service_account.clone());
        client
            .insert(Client::new(transport, namespace.clone()))
            .clone()
    }
}

async fn bounded<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match timeout(CALL_LIMIT, call).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_) => Err(Error::Timeout),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validate(args: &Args, environment: &[(&str, &str)]) -> Result<Settings, String> {
        let environment = (environment.iter())
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut errors = ConfigErrors::default();
        let settings = args.validate(&environment, &mut errors);
        errors.finish(Some(settings))
    }

    fn args(folder: &std::path::Path) -> Args {
        Args {
            kube: "auto".to_owned(),
            service: Vec::new(),
            service_account: folder.to_owned(),
        }
    }

    const POD: [(&str, &str); 4] = [
        ("KUBERNETES_SERVICE_HOST", "fd00::1"),
        ("KUBERNETES_SERVICE_PORT", "6443"),
        ("POD_NAME", "shop-1"),
        ("POD_UID", "u"),
    ];

    #[test]
    fn the_api_is_asked_where_a_service_account_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let args = args(folder.path());
        let settings = validate(&args, &POD).unwrap();
        assert_eq!((settings.access, settings.warning), (None, None));
        std::fs::write(folder.path().join("token"), "t").unwrap();
        std::fs::write(folder.path().join("namespace"), "shops").unwrap();
        let access = validate(&args, &POD).unwrap().access.unwrap();
        assert_eq!((access.host.as_str(), access.port), ("fd00::1", 6443));
        assert_eq!(
            (access.namespace.as_str(), access.pod.as_str()),
            ("shops", "shop-1")
        );
        let off = Args {
            kube: "off".to_owned(),
            ..args.clone()
        };
        assert_eq!(validate(&off, &POD).unwrap().access, None);
        let nameless = validate(&args, &POD[..2]).unwrap();
        assert_eq!(nameless.access, None);
        assert!(nameless.warning.unwrap().contains("POD_NAME"));
    }

    #[test]
    fn wrong_flags_are_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let wrong = Args {
            kube: "on".to_owned(),
            ..args(folder.path())
        };
        assert!(validate(&wrong, &[]).unwrap_err().contains("auto or off"));
        for name in ["", "Shop", "shop.example", "-shop", "shop,till"] {
            let wrong = Args {
                service: vec![name.to_owned()],
                ..args(folder.path())
            };
            let message = validate(&wrong, &[]).unwrap_err();
            assert!(message.contains("no Service's name"), "{message}");
        }
        let off = Args {
            kube: "off".to_owned(),
            service: vec!["shop".to_owned()],
            ..args(folder.path())
        };
        assert!(validate(&off, &[]).unwrap_err().contains("--kube=off"));
        let outside = Args {
            service: vec!["shop".to_owned()],
            ..args(folder.path())
        };
        let warning = validate(&outside, &[]).unwrap().warning.unwrap();
        assert!(warning.contains("automountServiceAccountToken"));
    }
}
