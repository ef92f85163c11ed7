//! A real Prometheus that scrapes pages from us and answers questions about them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::scan::{Page, folder};

/// Where `tests/setup` unpacks Debian's package.
const PROGRAM: &str = "target/test-env/prometheus/usr/bin/prometheus";
/// Far more than anything takes, on any machine. Nothing waits this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The label that tells which page a series is from, where there are several. No page has it.
pub const PAGE: &str = "from_page";

/// A Prometheus that has scraped some pages.
pub struct Prometheus {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes these pages; none where the program is not there, which is said.
    pub fn scraping(pages: &[Page]) -> Option<Self> {
        if !folder(PROGRAM).exists() {
            // Straight to where people look: what tests print is not shown while they pass.
            let told = b"skipped: there is no Prometheus to compare with; tests/setup says why\n";
            std::io::stderr().write_all(told).unwrap();
            return None;
        }
        let address = serve(pages);
        let targets: Vec<Json> = (pages.iter())
            .map(|page| {
                json!({
                    "targets": [address.to_string()],
                    "labels": {"__metrics_path__": format!("/{}", page.name), "instance": "ours", PAGE: page.name},
                })
            })
            .collect();
        // Prometheus adds labels of its own, which have to go: we are to see the page and nothing else.
        let mut relabel: Vec<Json> = (["job", "instance"].iter())
            .map(|label| json!({"source_labels": [label], "regex": "ours", "target_label": label, "replacement": ""}))
            .collect();
        if pages.len() == 1 {
            relabel.push(json!({"action": "labeldrop", "regex": PAGE}));
        }
        let config = json!({
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s"},
            "scrape_configs": [{
                "job_name": "ours",
                "honor_labels": true,
                "honor_timestamps": false,
                "static_configs": targets,
                "metric_relabel_configs": relabel,
            }],
        });
        let folder_of_its_own = tempfile::tempdir().unwrap();
        let path = folder_of_its_own.path().join("prometheus.yml"); // JSON is YAML.
        std::fs::write(&path, config.to_string()).unwrap();
        let port = free_port();
        let child = Command::new(folder(PROGRAM))
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder_of_its_own.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .current_dir(folder_of_its_own.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            port,
            _folder: folder_of_its_own,
        };
        prometheus.wait_for("all pages to be scraped", |prometheus| {
            let scraped = prometheus.targets()?;
            (scraped.len() == pages.len()).then_some(())
        });
        Some(prometheus)
    }

    /// Asks until there is an answer.
    pub fn wait_for<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("Prometheus ended, {status}, before {what}");
            }
            assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Why each page was refused, if it was; nothing before each has been scraped in time.
    pub fn targets(&self) -> Option<BTreeMap<String, Option<String>>> {
        let answer = self.get("/api/v1/targets?state=active")?;
        let targets = answer["data"]["activeTargets"].as_array()?;
        (targets.iter())
            .map(|target| {
                let page = target["labels"][PAGE].as_str()?.to_owned();
                match (target["health"].as_str()?, target["lastError"].as_str()?) {
                    ("up", _) => Some((page, None)),
                    // Our page did not come in time: that is about this machine, not about the page.
                    ("down", why) if why.contains("context deadline") => None,
                    ("down", why) => Some((page, Some(why.to_owned()))),
                    _ => None,
                }
            })
            .collect()
    }

    /// The answer to an instant query, now or at a time in seconds.
    pub fn query(&self, query: &str, time: Option<&str>) -> Json {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let time = time.map_or(String::new(), |time| format!("&time={time}"));
        let answer = self.get(&format!("/api/v1/query?query={query}{time}"));
        answer.unwrap_or_else(|| panic!("no answer to {query}"))
    }

    fn get(&self, path: &str) -> Option<Json> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        agent.get(&url).call().ok()?.body_mut().read_json().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Serves pages, each under its name, until the tests end.
fn serve(pages: &[Page]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let pages = pages.to_vec();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that hangs up early asks again.
            let _ = answer(stream.unwrap(), &pages);
        }
    });
    address
}

fn answer(stream: TcpStream, pages: &[Page]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(&stream).take(64 * 1024);
    let mut first = String::new();
    lines.read_line(&mut first)?;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split(' ').nth(1).unwrap_or_default();
    let page = pages
        .iter()
        .find(|page| path == format!("/{}", page.name))
        .unwrap();
    let kind = match page.open_metrics {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    let mut stream = &stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        page.content.len()
    )?;
    stream.write_all(&page.content)
}
