//! How a policy file writes a stretch of time, and how a person is told of one.

use crate::resolve::Limits;
use std::time::Duration;

/// The longest stretch: a year.
const LONGEST: u64 = 366 * 24 * 3_600_000;
/// What a unit is, in milliseconds; its name in words.
const UNITS: [(&str, u64, &str); 5] = [
    ("ms", 1, "millisecond"),
    ("s", 1_000, "second"),
    ("m", 60_000, "minute"),
    ("h", 3_600_000, "hour"),
    ("d", 86_400_000, "day"),
];

/// Reads `45s`, `30m`, `2h`.
///
/// # Errors
/// What is wrong, with what would be right.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(policies::budget::duration("30m"), Ok(Duration::from_secs(1_800)));
/// assert!(policies::budget::duration("1h30m").is_err());
/// ```
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no stretch of time; write a number and ms, s, m, h or d, such as \"30m\"");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit, _) = UNITS.iter().find(|(word, ..)| *word == unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(*unit) {
        Some(0) => Err(format!("{text:?} is no time at all; nothing could be done in it")),
        Some(ms) if ms <= LONGEST => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?} is more than a year; leave it out for no limit")),
    }
}

/// The same in words: `30 minutes`, in the largest unit that divides it.
pub fn in_words(time: Duration) -> String {
    let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (_, unit, name) =
        UNITS.iter().rev().find(|(_, unit, _)| ms >= *unit && ms.is_multiple_of(*unit)).unwrap_or(&UNITS[0]);
    count(ms / unit, name)
}

/// `1 turn`, `2 turns`.
pub fn count(n: u64, name: &str) -> String {
    if n == 1 { format!("1 {name}") } else { format!("{n} {name}s") }
}

/// The limits, by name, that are named and greater than what is held above them.
pub fn exceeds(asked: &Limits, held: &Limits) -> Vec<&'static str> {
    let more = [
        ("usd", asked.usd != Limits::NONE.usd && asked.usd > held.usd),
        ("tokens", asked.tokens != u64::MAX && asked.tokens > held.tokens),
        ("turns", asked.turns != u32::MAX && asked.turns > held.turns),
        ("tool_calls", asked.tool_calls != u32::MAX && asked.tool_calls > held.tool_calls),
        ("wall", asked.wall.zip(held.wall).is_some_and(|(asked, held)| asked > held)),
    ];
    more.into_iter().filter(|(_, more)| *more).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_read_and_said() {
        for (text, said) in [
            ("45s", "45 seconds"),
            ("30m", "30 minutes"),
            ("90m", "90 minutes"),
            ("60m", "1 hour"),
            ("2h", "2 hours"),
            ("1d", "1 day"),
            ("1500ms", "1500 milliseconds"),
        ] {
            assert_eq!(in_words(duration(text).unwrap()), said);
        }
        for wrong in ["", "m", "30", "30 m", "-1m", "1.5h", "1h30m", "0s", "9999999999999999999s", "367d", "30M"] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }
}
