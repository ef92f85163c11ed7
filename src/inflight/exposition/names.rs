//! Which lines of a metrics page are worth parsing: those of the metrics that an expression names.

use memchr::memchr3;
use memchr::memmem::Finder;

/// Which lines are worth parsing.
#[derive(Debug, Clone)]
pub enum Names {
    /// Those of one metric: its name is looked for at the speed of memory.
    One(Box<Finder<'static>>),
    /// Those of several: each line's beginning is looked at, however many names there are.
    Several {
        /// The names, in order.
        names: Vec<String>,
        /// The bytes that a line worth a second look can begin with.
        first: Box<[bool; 256]>,
    },
    /// Every line; the reader of the samples chooses.
    Any,
}

impl Names {
    /// The lines of these metrics, and of all others where one of these cannot be looked for.
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        // On the page these three are escaped, so that the name is not found as it is.
        if names.iter().any(|name| name.contains(['\\', '"', '\n'])) {
            return Names::Any;
        }
        match names.as_slice() {
            [name] => Names::One(Box::new(Finder::new(name).into_owned())),
            _ => {
                let mut first = Box::new([false; 256]);
                let begins = names.iter().filter_map(|name| name.bytes().next());
                for byte in begins.chain(*b" \t\r\x0c{") {
                    first[usize::from(byte)] = true;
                }
                Names::Several { names, first }
            }
        }
    }

    /// Whether samples of the metric `name` are asked for.
    pub(super) fn wants(&self, name: &[u8]) -> bool {
        match self {
            Names::One(finder) => finder.needle() == name,
            Names::Several { names, .. } => names.iter().any(|wanted| wanted.as_bytes() == name),
            Names::Any => true,
        }
    }

    /// Whether a line, or its beginning, can be a sample of a wanted metric.
    pub(super) fn begin(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii_start();
        let named = |name: &[u8]| {
            let after = line.strip_prefix(name).map(<[u8]>::first);
            after.is_some_and(|next| next.is_none_or(|next| b" \t{".contains(next)))
        };
        match (self, line.first()) {
            // The name may stand, quoted, anywhere within the braces.
            (Names::Any, _) | (_, Some(b'{')) => true,
            (Names::One(finder), _) => named(finder.needle()),
            (Names::Several { names, .. }, _) => {
                let end = memchr3(b' ', b'\t', b'{', line).unwrap_or(line.len());
                let name = line[..end].trim_ascii_end();
                names
                    .binary_search_by(|wanted| wanted.as_bytes().cmp(name))
                    .is_ok()
            }
        }
    }
}
