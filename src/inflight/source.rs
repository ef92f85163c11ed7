//! Where a count is read, as the user writes it, and one read of it.

use std::fmt;

use tokio::time::timeout;

use super::page::{Page, PageRead};
use super::presets::Preset;
use super::processes::Signs;
use super::sockets::{AutoPorts, Rule, Table};
use super::{Error, ReadContext, port};
use crate::fetch;

/// Where a count is read.
#[derive(Debug)]
pub struct Source {
    /// As the user wrote it, credentials left out.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The preset that it was written as.
    pub(super) preset: Option<&'static Preset>,
}

/// What is read there.
#[derive(Debug)]
pub(super) enum Kind {
    Page(Box<Page>),
    /// The connections of a port; all of them, or those that are busy.
    Sockets {
        table: Table,
        busy: bool,
    },
}

impl Source {
    /// The busy connections of a port.
    pub(super) fn busy(port: u16) -> Self {
        Self {
            name: format!("tcp-busy://:{port}"),
            kind: Kind::Sockets {
                table: Table::new([port]),
                busy: true,
            },
            preset: None,
        }
    }

    /// Parses a counter of requests: a source as for `--inflight`, whose number rises with every request.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse_requests(text: &str) -> Result<Self, String> {
        let (address, selector) = match text.split_once('#') {
            Some((address, selector)) => (address, Some(selector)),
            None => (text, None),
        };
        let scheme = address.split_once("://");
        if let Some((scheme @ ("tcp" | "tcp-busy"), _)) = scheme {
            return Err(format!(
                "{scheme} counts connections and no requests; write the source of a counter, such as \
                 prometheus+http://127.0.0.1:8000/metrics#sum(http_requests_total)"
            ));
        }
        if let (Some((scheme, rest)), None) = (scheme, selector)
            && let Some(preset) = Preset::named(scheme)
        {
            let source = Self::parse(&preset.expand_requests(rest)?)?;
            return Ok(source.named(&("requests of ".to_owned() + text)));
        }
        let mut source = Self::parse(text)?;
        if let Kind::Page(page) = &mut source.kind {
            page.counts_requests();
        }
        Ok(source)
    }

    /// The counter of requests that its preset brings, if it does.
    pub(super) fn requests_of(text: &str) -> Option<Self> {
        let (scheme, _) = text.split_once("://")?;
        Preset::named(scheme).filter(|preset| preset.counts_requests())?;
        Self::parse_requests(text).ok()
    }

    /// Whether it counts nothing but requests on connections, so that without a connection there is no work.
    pub(super) fn ends_when_stuck(&self) -> bool {
        self.preset.is_some_and(|preset| preset.ends_when_stuck)
    }

    /// Counts our own reads of a page together, where several sources read it.
    pub(super) fn share_reads<'a>(
        sources: &'a [Self],
        counters: impl Iterator<Item = &'a mut Self>,
    ) {
        for counter in counters {
            let Kind::Page(page) = &mut counter.kind else {
                continue;
            };
            for other in sources.iter().filter_map(Self::page) {
                page.share_reads(other);
            }
        }
    }

    /// The page that it reads, if it reads one.
    pub(super) fn page(&self) -> Option<&Page> {
        match &self.kind {
            Kind::Page(page) => Some(page),
            Kind::Sockets { .. } => None,
        }
    }

    /// The busy connections of the ports on which the pod listens when a drain begins.
    pub(super) fn busy_auto(ports: AutoPorts) -> Self {
        Self {
            name: "tcp-busy://:auto".to_owned(),
            kind: Kind::Sockets {
                table: Table::auto(ports),
                busy: true,
            },
            preset: None,
        }
    }

    /// Parses `KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR`, `tcp://:PORT`, `tcp-busy://:PORT` or a preset.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, selector) = match text.split_once('#') {
            Some((address, selector)) => (address, Some(selector)),
            None => (text, None),
        };
        let (scheme, rest) = address.split_once("://").ok_or(
            "it has no scheme; write KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR, such as \
             prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress",
        )?;
        let kind = match (scheme, Preset::named(scheme)) {
            ("tcp" | "tcp-busy", _) => {
                let form = || format!("write {scheme}://:8000 with your app's port");
                let number = (rest.strip_prefix(':'))
                    .filter(|_| selector.is_none())
                    .ok_or_else(form)?;
                Kind::Sockets {
                    table: Table::new([port(number)?]),
                    busy: scheme == "tcp-busy",
                }
            }
            (_, Some(_)) if selector.is_some() => {
                return Err(format!(
                    "{scheme} is a preset and has its selector; leave out the # and what follows, or write the source out"
                ));
            }
            (_, Some(preset)) => {
                let source = Self::parse(&preset.expand(rest)?)?.named(text);
                return Ok(Self {
                    preset: Some(preset),
                    ..source
                });
            }
            (_, None) => Kind::Page(Box::new(Page::parse(scheme, rest, selector)?)),
        };
        Ok(Self {
            name: without_credentials(text),
            kind,
            preset: None,
        })
    }

    /// Gives it the name that it was written with.
    fn named(mut self, text: &str) -> Self {
        self.name = without_credentials(text);
        self
    }

    /// The ports of this pod that it asks or watches.
    pub(super) fn local_ports(&self) -> Vec<u16> {
        match &self.kind {
            Kind::Page(page) => page.local_port().into_iter().collect(),
            Kind::Sockets { .. } => self.ports().collect(),
        }
    }

    /// The ports whose connections it reads.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        let table = match &self.kind {
            Kind::Page(_) => None,
            Kind::Sockets { table, .. } => Some(table),
        };
        table.into_iter().flat_map(Table::ports)
    }

    /// Reads the count once.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub(super) async fn read(&self, context: &ReadContext) -> Result<PageRead, Error> {
        let read = async {
            match &self.kind {
                Kind::Page(page) => {
                    let read = page.read(&context.client).await?;
                    count(read.value).map(|value| PageRead { value, ..read })
                }
                Kind::Sockets { table, busy } => {
                    let rule = match busy {
                        false => Rule::Open,
                        true => Rule::Busy {
                            quiet_period: context.quiet_period,
                            max_quiet: context.max_quiet,
                        },
                    };
                    let ours = |peer| context.client.own_sockets().contains(peer);
                    match table.count(rule, ours).await? {
                        (0, false) => Err(Error::Http(fetch::Error::Refused)),
                        (count, _) => Ok(PageRead {
                            value: count as f64,
                            signs: Signs::default(),
                        }),
                    }
                }
            }
        };
        match timeout(context.read_timeout, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::Http(fetch::Error::Timeout(context.read_timeout))),
        }
    }
}

/// As the user wrote it, credentials left out.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A source's text without what stands before an `@` in its authority.
pub(super) fn without_credentials(text: &str) -> String {
    let shown = || {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '#', '?']).unwrap_or(rest.len());
        let (_, host) = rest[..end].rsplit_once('@')?;
        Some(format!("{scheme}://{host}{}", &rest[end..]))
    };
    shown().unwrap_or_else(|| text.to_owned())
}

/// A number, if it can be a count.
pub(super) fn count(value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(value + 0.0) // -0 would be shown as -0.
    } else {
        Err(Error::NoCount(value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::presets;
    use super::*;

    #[test]
    fn a_source_is_read_as_written() {
        let source =
            Source::parse("prometheus+http://me:pw@127.0.0.1:8000/metrics#m{a=\"#%20\"}").unwrap();
        assert_eq!(
            source.name,
            "prometheus+http://127.0.0.1:8000/metrics#m{a=\"#%20\"}"
        );
        let Kind::Page(page) = source.kind else {
            panic!("not a page");
        };
        assert_eq!(page.place.to_string(), "http://127.0.0.1:8000/metrics");
    }

    #[test]
    fn every_kind_goes_over_every_transport() {
        for (kind, selector) in [
            ("prometheus", "#m"),
            ("json", "#/a"),
            ("json", "#"),
            ("text", ""),
            ("nginx", ""),
        ] {
            for rest in [
                "http://h:1/x",
                "https://h:1/x",
                "unix:///run/h.sock:/x",
                "file:///run/work/x",
            ] {
                let text = format!("{kind}+{rest}{selector}");
                assert_eq!(Source::parse(&text).unwrap().name, text);
            }
        }
    }

    #[test]
    fn every_preset_is_a_source_and_keeps_the_name_it_was_given() {
        for preset in presets::ALL {
            let text = format!("{}://me:pw@127.0.0.1:81", preset.name);
            let source = Source::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(source.name, format!("{}://127.0.0.1:81", preset.name));
            assert!(Source::parse(&preset.shown().replace("PORT", "81")).is_ok());
        }
    }

    #[test]
    fn credentials_are_never_shown() {
        for (text, shown) in [
            ("x+http://u:p@h/a", "x+http://h/a"),
            ("x+http://u:p@h#a@b", "x+http://h#a@b"),
            ("x+http://h/a@b", "x+http://h/a@b"),
            ("rubbish", "rubbish"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn a_wrong_source_is_refused_with_a_remedy() {
        for (text, part) in [
            ("127.0.0.1:8000", "no scheme"),
            ("gopher://x/#m", "\"gopher\""),
            ("gopher+http://x/#m", "\"gopher\""),
            ("tcp://8000", "tcp://:8000"),
            ("tcp-busy://:http", "\"http\" is not a port"),
            ("tcp-busy://:8000#m", "tcp-busy://:8000"),
            ("vllm://127.0.0.1#m", "preset"),
            ("go-grpc://127.0.0.1", "go-grpc://127.0.0.1:PORT"),
            ("http://127.0.0.1:8000/metrics#m", "prometheus+http://"),
            ("json://127.0.0.1:8000/stats#/x", "json+https://"),
            ("json+://127.0.0.1:8000/stats#/x", "json+https://"),
            (
                "json+gopher://127.0.0.1:8000/stats#/x",
                "\"gopher\" is not a transport",
            ),
            ("json+http://127.0.0.1:8000/stats", "no selector"),
            ("json+http://127.0.0.1:8000/stats#busy", "write #/busy"),
            ("json+http://127.0.0.1:8000/stats#/~2", "~0 for ~"),
            (
                "json+unix://run/app.sock:/stats#/x",
                "does not begin with /",
            ),
            ("text+file://run/work/inflight", "from / on"),
            ("text+file:///run/work/", "from / on"),
            ("file:///run/work/inflight", "prometheus+file://"),
            ("text+http://127.0.0.1:8000/inflight#x", "takes no selector"),
            (
                "nginx+http://127.0.0.1:8000/stub_status#",
                "takes no selector",
            ),
            ("prometheus+http://127.0.0.1:8000/metrics", "no selector"),
            (
                "prometheus+http://127.0.0.1:8000/metrics#",
                "in the selector",
            ),
            (
                "prometheus+http://127.0.0.1:8000/metrics#rate(m[5m])",
                "a function",
            ),
            ("prometheus+http://:8000/metrics#m", "host"),
        ] {
            let refusal = Source::parse(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn only_finite_numbers_from_zero_up_are_counts() {
        assert_eq!(count(0.0).unwrap(), 0.0);
        assert_eq!(count(1.5).unwrap(), 1.5);
        for value in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(count(value).unwrap_err().kind(), "no-count");
        }
    }
}
