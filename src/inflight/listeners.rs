//! On which ports this pod listens, as the kernel's table has it: whether a port is the app's, or a typing mistake.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sockets::{Error, SIDECAR_PORTS, listeners_of_others};

/// How long after an app's first sign of life all its ports should listen.
pub const APP_START: Duration = Duration::from_secs(10);

/// How often that is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// The ports on which processes of this pod listen, our own left out.
///
/// # Errors
/// When the kernel cannot be asked.
pub async fn listening() -> Result<BTreeSet<u16>, Error> {
    let others = listeners_of_others().await?;
    Ok(others.iter().map(|listener| listener.port).collect())
}

/// What to say of ports of the app on which nothing listens, though the app is up and listens on others: asked again for
/// as long as an app may take to open all its ports.
pub async fn silent_ports(ports: &BTreeSet<u16>) -> Option<String> {
    let began = Instant::now();
    loop {
        let others = listening().await.ok()?;
        let silent: Vec<u16> = ports.difference(&others).copied().collect();
        if silent.is_empty() {
            return None;
        }
        if began.elapsed() >= APP_START {
            return unheard(&silent, &others);
        }
        sleep(PAUSE).await;
    }
}

/// What to say where nothing listens on these ports, and the pod listens on others, known sidecars left out.
pub fn unheard(ports: &[u16], others: &BTreeSet<u16>) -> Option<String> {
    let list = |ports: &[u16]| {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        ports.join(", ")
    };
    let others: Vec<u16> = (others.iter().copied())
        .filter(|port| !SIDECAR_PORTS.contains(port))
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "nothing listens on port {}, but the pod listens on {}; write the app's own port",
            list(ports),
            list(&others)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_listens_on_instead_is_said_and_known_sidecars_are_not() {
        let said = unheard(&[8000, 8001], &[8080, 15090].into()).unwrap();
        assert!(
            said.starts_with(
                "nothing listens on port 8000, 8001, but the pod listens on 8080; write"
            ),
            "{said}"
        );
        assert_eq!(unheard(&[8000], &[15090].into()), None);
        assert_eq!(unheard(&[8000], &BTreeSet::new()), None);
    }
}
