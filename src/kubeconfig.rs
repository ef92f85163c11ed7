//! The cluster of the user's kubeconfig, as `check --cluster` and `rehearse --cluster` reach it.

use std::fmt::Debug;

use anyhow::{Context as _, anyhow};
use kube::api::ListParams;
use kube::{Api, Client, Config};
use serde::de::DeserializeOwned;

/// How many objects are asked for at once.
const PAGE: u32 = 500;

/// A namespace of a cluster.
#[derive(Clone)]
pub struct Access {
    pub client: Client,
    pub namespace: String,
    /// The API server's address.
    pub url: String,
}

impl Access {
    /// The cluster that the kubeconfig names, with this namespace or the kubeconfig's own.
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

    /// Why nothing came of a request to the API server that it did not answer.
    pub fn unanswered(&self, error: kube::Error) -> anyhow::Error {
        anyhow::Error::new(error).context(format!("the API server at {} does not answer", self.url))
    }
}

/// All objects that there are.
///
/// # Errors
/// As [`each`].
pub async fn list<K>(api: &Api<K>) -> kube::Result<Vec<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut objects = Vec::new();
    each(api, |object| objects.push(object)).await?;
    Ok(objects)
}

/// Hands out the objects that there are, page by page.
///
/// # Errors
/// When a page is refused, or not answered. Those of the pages before were handed out.
pub async fn each<K>(api: &Api<K>, mut take: impl FnMut(K)) -> kube::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}
