//! The sidecar's container, as it is added to a pod.

use serde_json::{Value, json};

use super::{Facts, NAME, with_host};
use crate::podspec::{Container, Node};

impl<'a> Facts<'a> {
    /// The container, whose sidecar listens on that port.
    pub(super) fn container(&self, port: i64) -> Value {
        let mut container = json!({
            "name": NAME,
            "image": self.settings.get("image"),
            "imagePullPolicy": self.settings.get("pull-policy"),
            "restartPolicy": "Always",
            "args": ["run"],
            "env": self.environment(port),
        });
        if !self.on_host() {
            container["ports"] =
                json!([{ "name": NAME, "containerPort": port, "protocol": "TCP" }]);
        }
        container["startupProbe"] = json!({
            "tcpSocket": with_host(json!({ "port": port }), self.on_host()),
            "periodSeconds": 1,
            "failureThreshold": 60,
        });
        if !self.on_host() {
            container["readinessProbe"] =
                json!({ "httpGet": { "path": "/readyz", "port": port }, "periodSeconds": 2 });
        }
        container["lifecycle"] = json!({ "preStop": self.http_hook("/prestop/self", port) });
        container["resources"] = self.resources();
        container["securityContext"] = self.security_context();
        if let Some(mount) = self.drain_file_mount() {
            let text = |key| mount.text_at(key).unwrap_or_default();
            container["volumeMounts"] =
                json!([{ "name": text("name"), "mountPath": text("mountPath") }]);
        }
        container
    }

    fn environment(&self, port: i64) -> Vec<Value> {
        let mut environment = Vec::new();
        let mut set =
            |name: &str, value: &str| environment.push(json!({ "name": name, "value": value }));
        let token = self.token();
        if !token.is_empty() {
            set("GRACEKEEPER_TOKEN", &token);
        }
        let host = if self.on_host() { "127.0.0.1" } else { "[::]" };
        set("GRACEKEEPER_GRACE_PERIOD", &self.grace_text());
        set("GRACEKEEPER_LISTEN", &format!("{host}:{port}"));
        set("GRACEKEEPER_APP_PORT", &self.app_ports());
        set("GRACEKEEPER_KUBE", self.kube());
        set("GRACEKEEPER_ON_MISTAKE", "defaults");
        for (name, field) in [
            ("POD_NAME", "name"),
            ("POD_NAMESPACE", "namespace"),
            ("POD_UID", "uid"),
        ] {
            let field = format!("metadata.{field}");
            environment
                .push(json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": field } } }));
        }
        for (name, value) in self.flags() {
            let value = match name {
                "service" => value.replace(',', "\n"),
                _ => value.to_owned(),
            };
            // The kubelet would expand what looks like a variable.
            let value = value.trim().replace("$(", "$$(");
            let name = format!("GRACEKEEPER_{}", name.to_uppercase().replace('-', "_"));
            environment.push(json!({ "name": name, "value": value }));
        }
        environment
    }

    /// Where a quota asks for limits, the app's containers have them, and ours needs them too; and a pod whose requests are
    /// its limits stays one.
    fn resources(&self) -> Value {
        let get = |name| self.settings.get(name);
        let all = || self.containers.iter().chain(&self.init_containers);
        let limit = |it: &Container<'a>, what| {
            it.node
                .at(&["resources", "limits", what])
                .and_then(Node::text)
        };
        // The API server takes the limit for the request where none is written.
        let request = |it: &Container<'a>, what| {
            (it.node
                .at(&["resources", "requests", what])
                .and_then(Node::text))
            .or_else(|| limit(it, what))
        };
        let guaranteed = all().all(|it| {
            ["cpu", "memory"].iter().all(|what| {
                let (limit, request) = (limit(it, what), request(it, what));
                limit.is_some() && limit.map(quantity) == request.map(quantity)
            })
        });
        let requests = match guaranteed {
            true => json!({ "cpu": get("limits-cpu"), "memory": get("limits-memory") }),
            false => json!({ "cpu": get("requests-cpu"), "memory": get("requests-memory") }),
        };
        let limits = match all().all(|it| limit(it, "cpu").is_some()) {
            true => json!({ "cpu": get("limits-cpu"), "memory": get("limits-memory") }),
            false => json!({ "memory": get("limits-memory") }),
        };
        json!({ "requests": requests, "limits": limits })
    }

    fn security_context(&self) -> Value {
        let mut context = json!({ "runAsNonRoot": true });
        let id = |name| self.settings.get(name).parse::<i64>().ok();
        let root = self
            .pod
            .spec
            .at(&["securityContext", "runAsUser"])
            .and_then(Node::number)
            == Some(0);
        // Root by the pod's wish is no user for ours, whose image says 65532.
        if let Some(user) = id("run-as-user").or(root.then_some(65_532)) {
            context["runAsUser"] = json!(user);
        }
        if let Some(group) = id("run-as-group") {
            context["runAsGroup"] = json!(group);
        }
        context["readOnlyRootFilesystem"] = json!(true);
        context["allowPrivilegeEscalation"] = json!(false);
        context["capabilities"] = json!({ "drop": ["ALL"] });
        if self.settings.get("seccomp-profile") != "none" {
            context["seccompProfile"] = json!({ "type": "RuntimeDefault" });
        }
        context
    }
}

/// A quantity's number in thousandths of what it counts, so that `0.5` and `500m` are the same.
fn quantity(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let thousandths: i128 = format!("{whole}{fraction:0<3.3}").parse().ok()?;
    let factor: i128 = match suffix {
        "m" => return Some(thousandths / 1000),
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    Some(thousandths * factor)
}
