//! Containers of a pod: ports, hooks, probes, command line and environment.

use super::document::Node;

/// What a container is in its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It runs to its end before the others start.
    Init,
    /// An init container with `restartPolicy: Always`: stopped after the ordinary ones.
    NativeSidecar,
    /// One of `containers`.
    Ordinary,
}

/// A container.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// The whole container.
    pub node: &'a Node,
    /// What it is in its pod.
    pub role: Role,
}

/// A hook or a probe.
#[derive(Debug, Clone, Copy)]
pub struct Handler<'a> {
    /// All of it: `preStop` or the probe.
    pub node: &'a Node,
}

/// What a hook or a probe does.
#[derive(Debug, Clone)]
pub enum Action<'a> {
    /// Runs a command in its container.
    Exec(Vec<&'a str>),
    /// Sends a request.
    HttpGet {
        /// `httpGet`.
        node: &'a Node,
        /// The host, where one is written.
        host: Option<&'a str>,
        /// The path, `/` where none is written.
        path: &'a str,
        /// The port.
        port: Option<Port<'a>>,
    },
    /// Connects.
    TcpSocket(Option<Port<'a>>),
    /// Waits for that many seconds.
    Sleep(i64),
    /// None of them.
    Other,
}

/// A port as hooks and probes name it.
#[derive(Debug, Clone, Copy)]
pub struct Port<'a> {
    /// Where it is written.
    pub node: &'a Node,
}

/// A probe.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// What it does.
    pub handler: Handler<'a>,
}

impl<'a> Container<'a> {
    /// Its name; a word for it where none is written, as Knative allows.
    pub fn name(&self) -> &'a str {
        self.node.text_at("name").unwrap_or("(no name)")
    }

    /// Its image; empty where none is written.
    pub fn image(&self) -> &'a str {
        self.node.text_at("image").unwrap_or_default()
    }

    /// Where to point at it as a whole.
    pub fn head(&self) -> &'a Node {
        self.node.get("name").unwrap_or(self.node)
    }

    /// The TCP ports it says it opens, with their names.
    pub fn ports(&self) -> impl Iterator<Item = (i64, Option<&'a str>)> {
        let ports = self.node.get("ports").into_iter().flat_map(Node::items);
        ports
            .filter(|port| port.text_at("protocol").unwrap_or("TCP") == "TCP")
            .filter_map(|port| Some((port.number_at("containerPort")?, port.text_at("name"))))
    }

    /// The number of a port that it gives a name.
    pub fn port_named(&self, name: &str) -> Option<i64> {
        self.ports()
            .find(|(_, named)| *named == Some(name))
            .map(|(number, _)| number)
    }

    /// Its `command`: what takes the place of the image's entrypoint.
    pub fn command(&self) -> Vec<&'a str> {
        words(self.node.get("command"))
    }

    /// Its `args`.
    pub fn args(&self) -> Vec<&'a str> {
        words(self.node.get("args"))
    }

    /// The entry of an environment variable.
    pub fn env(&self, name: &str) -> Option<&'a Node> {
        self.envs()
            .filter(|entry| entry.text_at("name") == Some(name))
            .last()
    }

    /// All entries of `env`.
    pub fn envs(&self) -> impl Iterator<Item = &'a Node> {
        self.node.get("env").into_iter().flat_map(Node::items)
    }

    /// Its preStop hook.
    pub fn pre_stop(&self) -> Option<Handler<'a>> {
        let node = self.node.at(&["lifecycle", "preStop"])?;
        node.is_mapping().then_some(Handler { node })
    }

    /// `readinessProbe`, `livenessProbe` or `startupProbe`.
    pub fn probe(&self, kind: &str) -> Option<Probe<'a>> {
        let node = self.node.get(kind)?;
        node.is_mapping().then_some(Probe {
            handler: Handler { node },
        })
    }
}

impl<'a> Handler<'a> {
    /// What it does. Where more than one thing is written, which the API server refuses, the first of these.
    pub fn action(&self) -> Action<'a> {
        let at = |key| self.node.get(key).filter(|node| node.is_mapping());
        if let Some(exec) = at("exec") {
            return Action::Exec(words(exec.get("command")));
        }
        if let Some(node) = at("httpGet") {
            return Action::HttpGet {
                node,
                host: node.text_at("host").filter(|host| !host.is_empty()),
                path: node.text_at("path").unwrap_or("/"),
                port: node.get("port").map(|node| Port { node }),
            };
        }
        if let Some(node) = at("tcpSocket") {
            return Action::TcpSocket(node.get("port").map(|node| Port { node }));
        }
        match at("sleep").and_then(|sleep| sleep.number_at("seconds")) {
            Some(seconds) => Action::Sleep(seconds),
            None => Action::Other,
        }
    }

    /// How many kinds of actions are written; the API server takes exactly one.
    pub fn actions(&self) -> usize {
        ["exec", "httpGet", "tcpSocket", "sleep", "grpc"]
            .iter()
            .filter(|key| self.node.get(key).is_some_and(|node| !node.is_null()))
            .count()
    }

    /// The value of a header of `httpGet`; header names are compared without their case.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let headers = self.node.at(&["httpGet", "httpHeaders"])?;
        headers
            .items()
            .find(|header| {
                header
                    .text_at("name")
                    .is_some_and(|text| text.eq_ignore_ascii_case(name))
            })?
            .text_at("value")
    }
}

impl<'a> Port<'a> {
    /// The number, written as one or as a string of digits.
    pub fn number(&self) -> Option<i64> {
        self.node.text()?.parse().ok()
    }

    /// The name, where it is no number.
    pub fn name(&self) -> Option<&'a str> {
        self.node.text().filter(|text| text.parse::<i64>().is_err())
    }
}

impl Probe<'_> {
    /// Seconds between two probes; the default is 10.
    pub fn period(&self) -> i64 {
        self.number("periodSeconds", 10)
    }

    /// How many failures in a row count as one; the default is 3.
    pub fn failure_threshold(&self) -> i64 {
        self.number("failureThreshold", 3)
    }

    /// How long one probe may take, in seconds; the default is 1.
    pub fn timeout(&self) -> i64 {
        self.number("timeoutSeconds", 1)
    }

    fn number(&self, key: &str, default: i64) -> i64 {
        self.handler
            .node
            .number_at(key)
            .filter(|&number| number > 0)
            .unwrap_or(default)
    }
}

fn words(list: Option<&Node>) -> Vec<&str> {
    list.into_iter()
        .flat_map(Node::items)
        .map(|word| word.text().unwrap_or_default())
        .collect()
}
