//! Bearer tokens that stand in a file (`--token-auth-file`). Source: Kubernetes documentation,
//! "Authenticating", "Static token file".
//!
//! A line is a record of comma-separated values (RFC 4180): token, user name, uid and, if there is
//! a fourth, groups, separated by commas in their turn. The file is read once.

use std::collections::HashMap;

use anyhow::{Context, bail, ensure};
use machinery::UserInfo;
use sha2::{Digest, Sha256};

type Fingerprint = [u8; 32];

/// The users of the file, by what their tokens hash to: looking one up says nothing about tokens
/// by the time that it takes.
pub(super) struct TokenFile(HashMap<Fingerprint, UserInfo>);

impl TokenFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A record has less than three fields, or a quotation does not end. Never holds a token.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty()) {
            let fields = fields(line).with_context(|| format!("token-auth-file: line {number}"))?;
            let [token, name, uid, groups @ ..] = &fields[..] else {
                bail!(
                    "token-auth-file: line {number} must have at least 3 columns (token, user \
                     name, user uid), found {}",
                    fields.len()
                );
            };
            if token.is_empty() {
                tracing::warn!("Line {number} of the token file has an empty token: left out.");
                continue;
            }
            let groups = groups.first().map_or("", String::as_str).split(',');
            let user = UserInfo {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.filter(|group| !group.is_empty()).map(str::to_owned).collect(),
                ..UserInfo::default()
            };
            if users.insert(fingerprint(token), user).is_some() {
                tracing::warn!("Line {number} of the token file repeats a token: it wins.");
            }
        }
        Ok(Self(users))
    }

    /// Whom a token names.
    pub(super) fn user(&self, token: &str) -> Option<UserInfo> {
        self.0.get(&fingerprint(token)).cloned()
    }
}

fn fingerprint(token: &str) -> Fingerprint {
    Sha256::digest(token).into()
}

/// The fields of a record; a quoted one may hold commas, and quotes that are doubled.
fn fields(line: &str) -> anyhow::Result<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quotation(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => {
                ensure!(after.is_empty(), "something follows a quotation");
                return Ok(fields);
            }
        }
    }
}

/// What is quoted, and what follows the closing quote.
fn quotation(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"').context("a quotation does not end")?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                value.push('"');
                rest = more;
            }
            None => return Ok((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_by_their_tokens() {
        let text = "t1,jane,7,\"system:masters,dev\"\n\nt2,joe,\n,nobody,9\r\nt1,jack,8\n";
        let file = TokenFile::parse(text).unwrap();
        let jack = file.user("t1").unwrap();
        assert_eq!((jack.name.as_str(), jack.uid.as_str()), ("jack", "8"), "the last line wins");
        assert!(jack.groups.is_empty());
        assert_eq!(file.user("t2").unwrap().name, "joe");
        assert!(file.user("").is_none() && file.user("t3").is_none());
        let jane = TokenFile::parse("t1,jane,7,\"a,b\"").unwrap().user("t1").unwrap();
        assert_eq!(jane.groups, ["a", "b"]);
    }

    #[test]
    fn quotations_are_read_as_spreadsheets_write_them() {
        assert_eq!(fields("a,\"b,\"\"c\"\"\",").unwrap(), ["a", "b,\"c\"", ""]);
        assert!(fields("\"a").is_err() && fields("\"a\"b,c").is_err());
    }

    #[test]
    fn damage_is_an_error_without_the_token() {
        let error = TokenFile::parse("fine,a,b\nsecret,only").map(drop).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("line 2") && !text.contains("secret"), "{text}");
    }
}
