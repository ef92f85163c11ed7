//! What will be done, found out before anything is.

use std::fmt;

use anyhow::bail;

use super::access::Right;
use super::service;
use super::workload::Workload;
use super::{Settings, workload::Kind};
use crate::kubeconfig::Access;

/// What is needed beside the rights on the workload itself.
const RIGHTS: [Right; 9] = [
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("get", "", "pods", ""),
    ("create", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("get", "", "pods", "log"),
    ("list", "", "services", ""),
    ("list", "discovery.k8s.io", "endpointslices", ""),
    ("list", "events.k8s.io", "events", ""),
];

/// What will be done.
#[derive(Debug)]
pub struct Plan {
    pub workload: Workload,
    /// The name of the pod that sends.
    pub load_pod: String,
    pub namespace: String,
    server: String,
    image: String,
    urls: Vec<String>,
    rate: u32,
    notes: Vec<String>,
}

impl Plan {
    /// Looks at all that is needed.
    ///
    /// # Errors
    /// When something stands in the way; nothing has been done then.
    pub async fn make(access: &Access, settings: &Settings) -> anyhow::Result<Self> {
        let plural = settings.workload.kind.plural();
        let mut rights = vec![("get", "apps", plural, ""), ("patch", "apps", plural, "")];
        rights.extend(RIGHTS);
        let missing = access.missing(&rights).await?;
        if !missing.is_empty() {
            bail!(
                "you may not do all that is needed in namespace {}; missing: {}; docs/rehearse.md has a Role with all of it",
                access.namespace,
                missing.join(", ")
            );
        }
        let workload = Workload::find(access, &settings.workload, settings.mode).await?;
        let labels = (workload.pods.first())
            .and_then(|pod| pod.metadata.labels.clone())
            .unwrap_or_default();
        let mut notes = Vec::new();
        for target in &settings.load.targets {
            notes.extend(service::look(access, target, &labels).await?);
        }
        notes.dedup();
        if workload.recreates {
            notes.push(
                "its strategy is Recreate: all pods end before new ones start, so requests are lost whatever the hooks do"
                    .to_owned(),
            );
        } else if workload.pods.len() == 1 && settings.workload.kind == Kind::StatefulSet {
            notes.push(
                "it has one pod, which ends before the new one starts: requests are lost whatever the hook does"
                    .to_owned(),
            );
        }
        Ok(Self {
            workload,
            load_pod: name(),
            namespace: access.namespace.clone(),
            server: access.url.clone(),
            image: settings.image.clone(),
            urls: settings
                .load
                .targets
                .iter()
                .map(|it| it.url.clone())
                .collect(),
            rate: settings.load.rate,
            notes,
        })
    }

    /// In which state an error left the workload.
    pub fn state_of(&self, has_restarted: bool) -> String {
        let reference = &self.workload.reference;
        match has_restarted {
            true => format!(
                "the rehearsal of {reference} did not end; the pod {} is removed, and the restart goes on by itself: \
                 kubectl -n {} rollout status {reference}",
                self.load_pod, self.namespace
            ),
            false => format!(
                "{reference} was not restarted, and the pod {} is removed",
                self.load_pod
            ),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = match self.workload.pods.len() {
            1 => "1 pod".to_owned(),
            n => format!("{n} pods"),
        };
        writeln!(
            f,
            "In namespace {} of the cluster at {} this will",
            self.namespace, self.server
        )?;
        writeln!(
            f,
            "- start a pod, {}, of the image {}, which sends {} requests a second to {}, none of them again;",
            self.load_pod,
            self.image,
            self.rate,
            self.urls.join(" and ")
        )?;
        writeln!(
            f,
            "- restart {}, {pods} with {}, as kubectl rollout restart does: nothing else of it is changed;",
            self.workload.reference,
            self.workload.ending.title()
        )?;
        writeln!(
            f,
            "- wait until the new pods serve and the old ones are gone, and remove the pod that sends."
        )?;
        writeln!(f, "The requests are real, and so are those that get lost.")?;
        for note in &self.notes {
            writeln!(f, "Note: {note}.")?;
        }
        Ok(())
    }
}

/// A name that no pod has yet.
fn name() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap_or_default();
    let number = since.as_nanos() as u64 ^ u64::from(std::process::id()) << 32;
    format!("gracekeeper-rehearse-{:08x}", number as u32)
}
