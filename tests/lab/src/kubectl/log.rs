//! What a failed test said, in one line: from its log.
//!
//! The log's two streams come together out of order, so its parts are looked for one by one: the
//! place from the driver's line (`!!! At file:line: command`) or upstream's stack, the complaint of
//! one of upstream's assertions (`FAIL!` and what follows), or else what a command printed last.

/// Longest message that is kept, in characters.
const LONGEST: usize = 300;
/// Lines of an assertion's complaint, and of a command's output, that are looked at.
const SAID: usize = 8;
/// Ends what the scripts' preparation prints, and the test's own part.
const EXIT: &str = "+++ exit code:";

/// Where the test failed and what it complained of.
pub fn complaint(log: &str) -> String {
    let plain = without_escapes(log);
    let lines: Vec<&str> = plain.lines().map(str::trim).collect();
    let prepared = lines.iter().position(|line| line.starts_with(EXIT)).map_or(0, |at| at + 1);
    // Where the test is one function, a line names it.
    let named = lines[prepared..].iter().position(|line| line.starts_with("+++ command:"));
    let start = prepared + named.map_or(0, |at| at + 1);
    let lines = &lines[start..];
    let end = lines.iter().position(|line| line.starts_with(EXIT)).unwrap_or(lines.len());
    let lines = &lines[..end];
    let at = lines.iter().find_map(|line| line.strip_prefix("!!! At "));
    let mut words: Vec<&str> = Vec::new();
    words.extend(lines.iter().find_map(|line| place(line)));
    let failed = lines.iter().rposition(|line| line.ends_with("FAIL!"));
    let said: Vec<&str> = match failed {
        Some(line) => {
            let after = &lines[line + 1..];
            // What was looked for comes behind all the text in which it was, which may be long.
            words.extend(after.iter().find(|l| l.starts_with("has not:") || l.starts_with("has:")));
            let is_told = |line: &&str| tells(line) && !words.contains(line);
            after.iter().copied().filter(is_told).take(SAID).collect()
        }
        None => {
            words.extend(at.and_then(|at| at.split_once(": ")).map(|(_, command)| command));
            let before = lines.iter().position(|line| line.starts_with("!!! "));
            let before = &lines[..before.unwrap_or(lines.len())];
            let last = before.iter().rev().filter_map(|line| status(line)).take(3);
            let mut last: Vec<&str> = last.collect();
            last.reverse();
            last
        }
    };
    words.extend(said);
    let text: Vec<&str> = words.iter().flat_map(|part| part.split_whitespace()).collect();
    text.join(" ").chars().take(LONGEST).collect()
}

/// `core.sh:83` of a line that names a place in a test.
fn place(line: &str) -> Option<&str> {
    let (_, rest) = line.strip_prefix("!!! ")?.rsplit_once("test/cmd/")?;
    let place = rest.split(' ').next()?.trim_end_matches(':');
    let (file, number) = place.rsplit_once(':')?;
    let is_test = file.ends_with(".sh") && file != "legacy-script.sh";
    (is_test && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(place)
}

/// What a line says, without the date that upstream's scripts put before it.
fn status(line: &str) -> Option<&str> {
    match line.strip_prefix("+++ [") {
        Some(rest) => rest.split_once("] ").map(|(_, said)| said),
        None => tells(line).then_some(line),
    }
}

/// False for what the scripts print around a complaint.
fn tells(line: &str) -> bool {
    // The shell's `caller` prints a line's number and the file.
    let (number, file) = line.split_once(' ').unwrap_or_default();
    let is_caller = number.bytes().all(|b| b.is_ascii_digit()) && file.ends_with(".sh");
    let around = ["!!! ", "+++ ", "Successful", "Waiting for Get "];
    let is_success = line.split_once(": ").is_some_and(|(_, rest)| rest.starts_with("Successful"));
    !(line.is_empty() || is_caller || is_success || around.iter().any(|s| line.starts_with(s)))
}

/// Text without the sequences that colour it.
fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\u{1b}' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            // Ends with a letter.
            Some('[') => while characters.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
            // Chooses a character set, which a further character names.
            Some('(') => drop(characters.next()),
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREPARATION: &str = "legacy-script.sh: line 168: bogus: command not found\n\
                               !!! [1129 07:48:07] Call tree:\n+++ exit code: 127\n";

    #[test]
    fn an_assertion_tells_what_it_expected() {
        let log = format!(
            "{PREPARATION}\u{1b}[32mcreate.sh:127: Successful get\u{1b}(B\u{1b}[m\n\
             !!! At hack/lib/test.sh:56: return 1\n\u{1b}[1m\u{1b}[31m\ncreate.sh:128: FAIL!\n\
             Get services {{{{range.items}}}}\n  Expected: \n  Got:      kubernetes:\n\
             56 hack/lib/test.sh\n!!! [1129 07:48:08] Call tree:\n\
             !!! [1129 07:48:08]  1: test/cmd/../../test/cmd/create.sh:128 kube::test::a(...)\n\
             +++ exit code: 1\nNo resources found\n"
        );
        let expected = "create.sh:128 Get services {{range.items}} Expected: Got: kubernetes:";
        assert_eq!(complaint(&log), expected);
    }

    #[test]
    fn what_was_looked_for_comes_first() {
        let log =
            format!("{PREPARATION}FAIL!\nmessage:one\ntwo\nhas not:three\n+++ exit code: 1\n");
        assert_eq!(complaint(&log), "has not:three message:one two");
    }

    #[test]
    fn a_command_that_failed_is_named_with_its_last_words() {
        let log = format!(
            "{PREPARATION}+++ [1129 07:48:08] Testing\nerror: unknown command \"convert\"\n\
             !!! At test/cmd/../../test/cmd/convert.sh:34: output=$(kubectl convert -f x)\n\
             !!! [1129 07:48:11] Call tree:\n!!! [1129 07:48:11]  1: ./driver.sh:48 run_x(...)\n\
             !!! [1129 07:48:11]  2: test/cmd/legacy-script.sh:144 juLog(...)\n+++ exit code: 1\n"
        );
        let expected = "convert.sh:34 output=$(kubectl convert -f x) Testing error: unknown command \"convert\"";
        assert_eq!(complaint(&log), expected);
    }

    #[test]
    fn a_log_without_any_of_these_is_no_problem() {
        assert_eq!(complaint(""), "");
        assert_eq!(complaint("tput: unknown terminal"), "tput: unknown terminal");
    }
}
