//! The query string, decoded once.

use machinery::Status;
use streaming::kubelet::is_on;

/// Parameters in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

/// Decodes `%41` and `+`. Bytes that are not UTF-8 become U+FFFD.
pub fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |b: u8| (b as char).to_digit(16);
        match bytes[i] {
            b'%' => {
                let digit = |at: usize| bytes.get(at).copied().and_then(hex);
                match digit(i + 1).zip(digit(i + 2)) {
                    Some((high, low)) => {
                        out.push((high * 16 + low) as u8);
                        i += 3;
                        continue;
                    }
                    None => out.push(b'%'),
                }
            }
            b'+' if plus_is_space => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Query {
    /// Parses what follows the `?`.
    pub fn parse(raw: Option<&str>) -> Self {
        let pairs = raw.unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// True for a parameter that is there, unless it says `false` or `0`.
    pub fn flag(&self, key: &str) -> bool {
        is_on(self.get(key))
    }

    /// A whole number; 400 when it is something else.
    pub fn number(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("unable to parse {key}: {text:?} is not a number"))
            }),
        }
    }

    /// True when `dryRun=All`; 400 for other values.
    pub fn dry_run(&self) -> Result<bool, Status> {
        let mut all = false;
        for value in self.all("dryRun") {
            match value {
                "" => {}
                "All" => all = true,
                other => {
                    return Err(Status::bad_request(format!(
                        "invalid dryRun value {other:?}: supported values: \"All\""
                    )));
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding() {
        let q = Query::parse(Some("labelSelector=a%3Db%2Cc&watch=1&x=a+b&bad=%zz&end=%4"));
        assert_eq!(q.get("labelSelector"), Some("a=b,c"));
        assert!(q.flag("watch"));
        assert_eq!(q.get("x"), Some("a b"));
        assert_eq!(q.get("bad"), Some("%zz"));
        assert_eq!(q.get("end"), Some("%4"));
        assert!(q.number("x").is_err());
        let q = Query::parse(Some("%+a=1&a=%+1"));
        assert_eq!((q.get("% a"), q.get("a")), (Some("1"), Some("% 1")));
    }

    #[test]
    fn the_first_value_of_a_switch_counts() {
        let q = Query::parse(Some("a&b=yes&c=1&c=false&d=False&e=0&e=1&f=t"));
        let on: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(|key| q.flag(key)).into();
        assert_eq!(on, [true, true, true, false, false, true, false]);
    }
}
