//! One line of a metrics page: a name, labels, a value, and what may follow it.

/// What is left of a line.
pub struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    /// A whole line.
    pub fn new(text: &'a str) -> Self {
        Self { text }
    }

    fn blanks(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, symbol: char) -> bool {
        match self.text.strip_prefix(symbol) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    /// A metric's name.
    fn name(&mut self) -> &'a str {
        let end = self
            .text
            .bytes()
            .position(|b| !is_name_byte(b))
            .unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(end);
        self.text = rest;
        name
    }

    /// A label's name.
    fn label(&mut self) -> Result<&'a str, &'static str> {
        let name = self.name();
        match name.contains(':') || name.starts_with(|first: char| first.is_ascii_digit()) {
            true => Err("a label's name that is not valid"),
            false => Ok(name),
        }
    }

    /// What stands up to the next blank.
    fn word(&mut self) -> &'a str {
        let end = self.text.find([' ', '\t']).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word
    }

    /// The rest of a quoted string whose opening quote has been read, unescaped.
    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        let mut chars = self.text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.text = &self.text[at + 1..];
                    return Ok(value);
                }
                // Any other escape stands for itself, backslash and all, as Prometheus has it.
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err("a quoted string without its end")
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

/// Whether a whole line, without its end, is a sample.
pub fn is_sample(line: &[u8]) -> bool {
    let mut labels = Vec::new();
    std::str::from_utf8(line).is_ok_and(|text| {
        let mut rest = Cursor::new(text);
        matches!(sample(&mut rest, &mut labels), Ok(Some(_))) && value(&mut rest).is_ok()
    })
}

/// Reads a sample's name and labels.
pub fn sample(
    rest: &mut Cursor<'_>,
    labels: &mut Vec<(String, String)>,
) -> Result<Option<String>, &'static str> {
    labels.clear();
    let bare = rest.name();
    if bare.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("a name that begins with a digit");
    }
    if !rest.text.is_empty() && !rest.text.starts_with([' ', '\t', '{']) {
        return Err("no blank after the metric's name");
    }
    let mut name = (!bare.is_empty()).then(|| bare.to_owned());
    rest.blanks();
    if rest.eat('{') {
        loop {
            rest.blanks();
            if rest.eat('}') {
                break;
            }
            let (label, quoted) = if rest.eat('"') {
                (rest.quoted()?, true)
            } else {
                (rest.label()?.to_owned(), false)
            };
            rest.blanks();
            if rest.eat('=') {
                if label.is_empty() {
                    return Err("a label without a name");
                }
                if label == "__name__" {
                    return Err("a second name");
                }
                rest.blanks();
                if !rest.eat('"') {
                    return Err("a label's value without its quote");
                }
                let value = rest.quoted()?;
                labels.push((label, value));
            } else if quoted && name.is_none() {
                name = Some(label); // {"a name in UTF-8", label="value"}
            } else {
                return Err("a label without its \"=\"");
            }
            rest.blanks();
            if !rest.eat(',') && !rest.text.starts_with('}') {
                return Err("no comma between two labels");
            }
        }
    } else if name.is_none() {
        return Err("no metric's name");
    }
    let mut seen: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a label twice");
    }
    Ok(name)
}

/// Reads a sample's value and checks what may follow it: a timestamp, an exemplar.
pub fn value(rest: &mut Cursor<'_>) -> Result<f64, &'static str> {
    rest.blanks();
    let value = number(rest.word()).ok_or("a value that is not a number")?;
    rest.blanks();
    if !rest.text.is_empty() && !rest.text.starts_with('#') {
        number(rest.word()).ok_or("a timestamp that is not a number")?;
        rest.blanks();
    }
    if rest.text.is_empty() || rest.text.starts_with("# {") {
        Ok(value)
    } else {
        Err("something after the value")
    }
}

/// A number as Go's `strconv.ParseFloat` writes it, which is what the formats refer to.
fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}
