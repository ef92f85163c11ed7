//! The cluster of the user's kubeconfig, and what they may do in it.

use anyhow::{Context as _, anyhow};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client, Config};

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Access {
    pub client: Client,
    pub namespace: String,
    /// The API server's address.
    pub url: String,
}

/// Something that has to be allowed: verb, API group, resource, subresource.
pub type Right = (&'static str, &'static str, &'static str, &'static str);

impl Access {
    /// The cluster that the kubeconfig names.
    ///
    /// # Errors
    /// When there is no kubeconfig, or one that cannot be used.
    pub async fn new(namespace: Option<&str>) -> anyhow::Result<Self> {
        let config = Config::infer().await.map_err(|e| {
            anyhow!("there is no cluster; set KUBECONFIG or write ~/.kube/config ({e})")
        })?;
        let namespace = namespace.map_or_else(|| config.default_namespace.clone(), str::to_owned);
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).context("the kubeconfig cannot be used")?;
        Ok(Self {
            client,
            namespace,
            url,
        })
    }

    /// What of this is not allowed, each as `kubectl auth can-i` takes it. A cluster that does not say allows it.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn missing(&self, rights: &[Right]) -> anyhow::Result<Vec<String>> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let mut missing = Vec::new();
        for (verb, group, resource, subresource) in rights {
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(ResourceAttributes {
                        namespace: Some(self.namespace.clone()),
                        verb: Some((*verb).to_owned()),
                        group: Some((*group).to_owned()),
                        resource: Some((*resource).to_owned()),
                        subresource: Some((*subresource).to_owned()),
                        ..ResourceAttributes::default()
                    }),
                    non_resource_attributes: None,
                },
                ..SelfSubjectAccessReview::default()
            };
            match reviews.create(&PostParams::default(), &review).await {
                Ok(answer) if answer.status.as_ref().is_some_and(|status| !status.allowed) => {
                    let part = |sign: &str, text: &str| match text {
                        "" => String::new(),
                        text => format!("{sign}{text}"),
                    };
                    missing.push(format!(
                        "{verb} {resource}{}{}",
                        part(".", group),
                        part("/", subresource)
                    ));
                }
                Ok(_) | Err(kube::Error::Api(_)) => {}
                Err(e) => {
                    return Err(e).with_context(|| {
                        format!("the API server at {} does not answer", self.url)
                    });
                }
            }
        }
        Ok(missing)
    }
}

/// What the API server said, or why it did not.
pub fn why(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        e => e.to_string(),
    }
}

/// Whether the API server said that there is no such object.
pub fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
