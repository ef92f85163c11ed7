//! Pages as prometheus_client's parsers read them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::scan::{Page, Read, Sample, folder};

/// A Python that reads one page after the other.
pub struct Python {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Python {
    pub fn start() -> Self {
        let mut child = Command::new(folder("target/test-env/venv/bin/python"))
            .arg(folder("tests/reference/parse.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{e}; `make test` sets up what the tests need"));
        Self {
            to: child.stdin.take(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Reads all samples of a page.
    pub fn read(&mut self, page: &Page) -> Read {
        let question =
            json!({"content": STANDARD.encode(&page.content), "openmetrics": page.open_metrics});
        writeln!(self.to.as_mut().unwrap(), "{question}").unwrap();
        let mut answer = String::new();
        self.from.read_line(&mut answer).unwrap();
        let answer: Json = serde_json::from_str(&answer).unwrap();
        if let Some(why) = answer["refused"].as_str() {
            return Err(why.to_owned());
        }
        let mut samples: Vec<Sample> = (answer["samples"].as_array().unwrap().iter())
            .map(|sample| {
                let (name, labels, value): (String, _, String) =
                    serde_json::from_value(sample.clone()).unwrap();
                (name, labels, value.parse::<f64>().unwrap().into())
            })
            .collect();
        samples.sort();
        Ok(samples)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.to.take();
        let _ = self.child.wait();
    }
}
