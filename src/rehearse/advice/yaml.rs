//! What to paste into the pod.

use super::super::local::Settings;
use super::super::target::PORT;
use super::super::way::Way;
use super::port;

/// The sidecar, and the app's hook, with the flags of the way that was the best.
pub fn yaml(settings: &Settings, best: Option<Way>) -> String {
    let port = port(settings);
    let comment = if settings.chooses_port() {
        " # your app's port"
    } else {
        ""
    };
    let mut flags = settings.sidecar.clone();
    if best == Some(Way::Handover) {
        flags.retain(|flag| !flag.starts_with("--app-shutdown"));
        flags.push("--app-shutdown=graceful".to_owned());
    }
    let flags = flags.iter().map(|flag| {
        let with_comment = if flag.contains(PORT) { comment } else { "" };
        format!(
            "        - {}{with_comment}\n",
            quoted(&flag.replace(PORT, &port))
        )
    });
    let flags: String = flags.collect();
    let grace = settings.grace_period.as_secs().max(1);
    format!(
        "\
spec:
  terminationGracePeriodSeconds: {grace}
  initContainers:
    - name: gracekeeper
      image: registry.example/gracekeeper:{version}
      restartPolicy: Always # a native sidecar
      args:
        - run
{flags}      readinessProbe:
        httpGet: {{ path: /readyz, port: 9903 }}
        periodSeconds: 2
      lifecycle:
        preStop:
          httpGet: {{ path: /prestop/self, port: 9903 }}
  containers:
    - name: app # yours
      lifecycle:
        preStop:
          httpGet: {{ path: /prestop/app, port: 9903 }}
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A text as YAML, in quotes where plain text would be something else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn the_yaml_has_the_flags_of_the_sidecar() {
        let given = settings(
            "gracekeeper rehearse --url=http://127.0.0.1:{port}/ --inflight prometheus+http://127.0.0.1:{port}/m#a --grace-period=45s -- app",
        );
        let text = yaml(&given, Some(Way::Gracekeeper));
        for part in [
            "        - '--inflight=prometheus+http://127.0.0.1:8000/m#a' # your app's port\n",
            "        - --app-port=8000 # your app's port\n",
            "        - --grace-period=45s\n",
            "terminationGracePeriodSeconds: 45\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_handover_that_was_the_best_is_in_the_yaml() {
        let given = settings("gracekeeper rehearse --url=http://127.0.0.1:{port}/ -- app");
        let flag = "        - --app-shutdown=graceful\n";
        assert!(yaml(&given, Some(Way::Handover)).contains(flag));
        assert!(!yaml(&given, Some(Way::Gracekeeper)).contains(flag));
    }
}
