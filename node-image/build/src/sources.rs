//! Where packages come from: the machine's own Debian mirror, asked for another release.

use std::path::Path;

use anyhow::{Context, bail};

/// The apt sources (deb822 format) to build `suite` from.
///
/// `mirror` wins. Otherwise the stanzas and lines of this machine's apt configuration that carry
/// its own release (and its `-updates` and `-security`) are repeated for `suite`; repositories of
/// other vendors are left out.
///
/// # Errors
/// The machine is not Debian or has no source for its own release.
pub fn for_suite(suite: &str, mirror: Option<&str>) -> anyhow::Result<String> {
    if let Some(mirror) = mirror {
        return Ok(format!("Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n"));
    }
    let release = std::fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let host = codename(&release).context("/etc/os-release names no VERSION_CODENAME")?;
    let mut found = String::new();
    for (path, text) in files(Path::new("/etc/apt"))? {
        if path.ends_with(".sources") {
            found.push_str(&deb822(&text, &host, suite));
        } else {
            found.push_str(&one_line(&text, &host, suite));
        }
    }
    if found.is_empty() {
        bail!("no apt source for {host} below /etc/apt; name a Debian mirror with --mirror");
    }
    Ok(found)
}

fn files(etc: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut paths = vec![etc.join("sources.list")];
    if let Ok(dir) = std::fs::read_dir(etc.join("sources.list.d")) {
        paths.extend(dir.flatten().map(|entry| entry.path()));
    }
    paths.sort();
    let known = |p: &str| p.ends_with(".list") || p.ends_with(".sources");
    Ok(paths
        .into_iter()
        .filter(|p| known(&p.to_string_lossy()))
        .filter_map(|p| Some((p.to_string_lossy().into_owned(), std::fs::read_to_string(&p).ok()?)))
        .collect())
}

fn codename(os_release: &str) -> Option<String> {
    let line = os_release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="))?;
    Some(line.trim_matches('"').to_owned())
}

/// The same suite of another release: `bookworm-security` becomes `trixie-security`.
fn renamed(word: &str, host: &str, suite: &str) -> Option<String> {
    match word.strip_prefix(host)? {
        "" => Some(suite.to_owned()),
        rest @ ("-updates" | "-security") => Some(format!("{suite}{rest}")),
        _ => None,
    }
}

fn deb822(text: &str, host: &str, suite: &str) -> String {
    let mut out = String::new();
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let (Some(types), Some(uris), Some(suites)) =
            (field("Types"), field("URIs"), field("Suites"))
        else {
            continue;
        };
        let suites: Vec<String> =
            suites.split_whitespace().filter_map(|s| renamed(s, host, suite)).collect();
        let disabled = field("Enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"));
        if disabled || suites.is_empty() || !types.split_whitespace().any(|t| t == "deb") {
            continue;
        }
        out.push_str(&format!(
            "Types: deb\nURIs: {uris}\nSuites: {}\nComponents: main\n",
            suites.join(" ")
        ));
        if let Some(key) = field("Signed-By").filter(|key| key.starts_with('/')) {
            out.push_str(&format!("Signed-By: {key}\n"));
        }
        out.push('\n');
    }
    out
}

fn one_line(text: &str, host: &str, suite: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim().strip_prefix('[') {
            Some(inner) => inner.split_once(']').unwrap_or(("", "")),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(word)) = (words.next(), words.next()) else { continue };
        let Some(name) = renamed(word, host, suite) else { continue };
        out.push_str(&format!("Types: deb\nURIs: {uri}\nSuites: {name}\nComponents: main\n"));
        let key = options.split_whitespace().find_map(|o| o.strip_prefix("signed-by="));
        if let Some(key) = key {
            out.push_str(&format!("Signed-By: {key}\n"));
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stanzas_of_the_own_release_are_repeated_for_the_other() {
        let text = "Types: deb deb-src\n# a remark\nURIs: http://mirror.test/debian\n\
                    Suites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\n\
                    Signed-By: /usr/share/keyrings/k.gpg\n\n\
                    Types: deb\nURIs: http://vendor.test\nSuites: stable\nComponents: x\n\n\
                    Types: deb\nEnabled: no\nURIs: http://off.test\nSuites: bookworm\n";
        assert_eq!(
            deb822(text, "bookworm", "trixie"),
            "Types: deb\nURIs: http://mirror.test/debian\nSuites: trixie trixie-updates\n\
             Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n\n"
        );
    }

    #[test]
    fn one_line_sources_work_too() {
        let text = "# deb http://no.test bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m.test/debian bookworm main\n\
                    deb http://m.test/security bookworm-security main contrib\n\
                    deb-src http://m.test/debian bookworm main\n\
                    deb http://vendor.test cloud-sdk-bookworm main\n";
        assert_eq!(
            one_line(text, "bookworm", "trixie"),
            "Types: deb\nURIs: http://m.test/debian\nSuites: trixie\nComponents: main\n\
             Signed-By: /k.gpg\n\nTypes: deb\nURIs: http://m.test/security\n\
             Suites: trixie-security\nComponents: main\n\n"
        );
    }

    #[test]
    fn the_codename_is_found() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
    }
}
