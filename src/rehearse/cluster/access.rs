//! What the user may do in a cluster, and what the API server says.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::kubeconfig::Access;

/// Something that has to be allowed: verb, API group, resource, subresource.
pub type Right = (&'static str, &'static str, &'static str, &'static str);

impl Access {
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
                Err(e) => return Err(self.unanswered(e)),
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
