//! `datetime.now().strftime(format)` as Python prints it on Linux in the C locale: `strftime_now` of transformers.

use super::text::{Fault, Text, TextBuilder};
use jiff::Zoned;

/// Prints a local time. The time itself is the template's own text if the directive is, and data if it is data.
pub fn strftime(format: &Text, time: &Zoned, limit: usize) -> Result<Text, Fault> {
    let format = with_microseconds(format, time, limit)?;
    // CPython gives up on results that are this much longer than their format, and returns nothing.
    let len = format.count_chars();
    let mut longest = 1024usize;
    while longest < 256 * len {
        longest *= 2;
    }
    let enough = longest.saturating_mul(32); // more than so many characters and their origins take
    match print(&format, time, limit.min(enough)) {
        Err(Fault::TooLong) if enough <= limit => Ok(Text::default()),
        printed => printed.map(|text| if text.count_chars() < longest { text } else { Text::default() }),
    }
}

/// What `datetime` does before it hands the format to the C library: `%f` becomes the microseconds, `%z` and `%Z`
/// nothing, as the time has no zone. The format ends at a NUL.
fn with_microseconds(format: &Text, time: &Zoned, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    let end = format.as_str().find('\0').unwrap_or(format.len());
    let mut at = 0;
    while let Some(percent) = format.as_str()[at..end].find('%').map(|found| at + found) {
        out.push_slice(format, at..percent);
        let code = format.as_str()[percent + 1..end].chars().next();
        at = percent + 1 + code.map_or(0, char::len_utf8);
        match code {
            Some('f') => out.push_like(&format!("{:06}", time.subsec_nanosecond() / 1000), &format.slice(percent..at)),
            Some('z' | 'Z') => {}
            _ => out.push_slice(format, percent..at),
        }
    }
    out.push_slice(format, at..end);
    out.finish_within()
}

/// What glibc's `strftime` prints.
fn print(format: &Text, time: &Zoned, limit: usize) -> Result<Text, Fault> {
    let mut out = TextBuilder::limited(limit);
    let mut at = 0;
    while let Some(percent) = format.as_str()[at..].find('%').map(|found| at + found) {
        out.push_slice(format, at..percent);
        let (directive, len) = Directive::parse(&format.as_str()[percent..]);
        at = percent + len;
        let source = format.slice(percent..at);
        let shown = match directive.shown(time) {
            Some(shown) => shown,
            None => directive.cased(source.as_str()), // what is no directive is printed as it is
        };
        if directive.code == Some('z') && directive.is_allowed() {
            continue; // the time has no zone, and no place for one
        }
        let fill = if directive.pads_with_zeros() { "0" } else { " " };
        let fill = if source.has_data() { Text::data(fill) } else { Text::own(fill) };
        out.push_repeated(&fill, directive.width.saturating_sub(shown.chars().count()));
        out.push_like(&shown, &source);
        out.room()?;
    }
    out.push_slice(format, at..format.len());
    out.finish_within()
}

/// A directive: `%[flags][width][E|O]code`.
struct Directive {
    /// The last of the flags `_`, `-` and `0`.
    pad: Option<char>,
    /// The flag `^`.
    upper: bool,
    /// The flag `#`: the opposite case.
    swap: bool,
    width: usize,
    /// `E` or `O`: as the locale has it, if it has something else.
    modifier: Option<char>,
    code: Option<char>,
}

impl Directive {
    /// The directive at the start of a text, and its length.
    fn parse(text: &str) -> (Directive, usize) {
        let mut directive = Directive { pad: None, upper: false, swap: false, width: 0, modifier: None, code: None };
        let mut rest = text[1..].chars();
        let mut next = rest.next();
        loop {
            match next {
                Some('_' | '-' | '0') => directive.pad = next,
                Some('^') => directive.upper = true,
                Some('#') => directive.swap = true,
                _ => break,
            }
            next = rest.next();
        }
        while let Some(digit) = next.filter(char::is_ascii_digit).and_then(|digit| digit.to_digit(10)) {
            directive.width = directive.width.saturating_mul(10).saturating_add(digit as usize).min(i32::MAX as usize);
            next = rest.next();
        }
        if matches!(next, Some('E' | 'O')) {
            directive.modifier = next;
            next = rest.next();
        }
        directive.code = next;
        (directive, text.len() - rest.as_str().len())
    }

    /// Whether the code takes the modifier.
    fn is_allowed(&self) -> bool {
        let codes = match self.modifier {
            None => return true,
            Some('E') => "CPRTXYZcnprstuxyz%",
            _ => "BCGHIMPRSTUVWZbdeghjklmnprstuwyz%",
        };
        self.code.is_some_and(|code| codes.contains(code))
    }

    /// What the directive prints; `None` if there is no such directive.
    fn shown(&self, time: &Zoned) -> Option<String> {
        let code = self.code?;
        if !self.is_allowed() {
            return None;
        }
        let hour = i64::from(time.hour());
        let twelve = (hour + 11) % 12 + 1;
        let weekday = i64::from(time.weekday().to_sunday_zero_offset());
        let weekday_name = DAYS[weekday as usize];
        let month = MONTHS[time.month() as usize - 1];
        let day_of_year = i64::from(time.day_of_year());
        let iso = time.date().iso_week_date();
        let year = i64::from(time.year());
        Some(match code {
            '%' => "%".into(),
            'n' => "\n".into(),
            't' => "\t".into(),
            'a' => self.name(&weekday_name[..3]),
            'A' => self.name(weekday_name),
            'b' | 'h' => self.name(&month[..3]),
            'B' => self.name(month),
            'p' | 'P' => {
                let half = if hour < 12 { "AM" } else { "PM" };
                if code == 'P' || self.swap { half.to_lowercase() } else { half.into() }
            }
            'C' => self.number(year.div_euclid(100), 1),
            'd' => self.number(time.day().into(), 2),
            'e' => self.spaced(time.day().into()),
            'G' => self.number(iso.year().into(), 1),
            'g' => self.number(i64::from(iso.year()).rem_euclid(100), 2),
            'H' => self.number(hour, 2),
            'I' => self.number(twelve, 2),
            'j' => self.number(day_of_year, 3),
            'k' => self.spaced(hour),
            'l' => self.spaced(twelve),
            'M' => self.number(time.minute().into(), 2),
            'm' => self.number(time.month().into(), 2),
            'S' => self.number(time.second().into(), 2),
            's' => self.number(time.timestamp().as_second(), 1),
            'u' => self.number((weekday + 6) % 7 + 1, 1),
            'U' => self.number((day_of_year - 1 - weekday + 7) / 7, 2),
            'V' => self.number(iso.week().into(), 2),
            'w' => self.number(weekday, 1),
            'W' => self.number((day_of_year - 1 - (weekday + 6) % 7 + 7) / 7, 2),
            'Y' => self.number(year, 1),
            'y' => self.number(year.rem_euclid(100), 2),
            'z' | 'Z' => String::new(),
            'c' => self.all("%a %b %e %H:%M:%S %Y", time)?,
            'D' | 'x' => self.all("%m/%d/%y", time)?,
            'F' => self.all("%Y-%m-%d", time)?,
            'R' => self.all("%H:%M", time)?,
            'r' => self.all("%I:%M:%S %p", time)?,
            'T' | 'X' => self.all("%H:%M:%S", time)?,
            _ => return None,
        })
    }

    /// Several directives.
    fn all(&self, format: &str, time: &Zoned) -> Option<String> {
        let printed = print(&Text::own(format), time, usize::MAX).ok()?;
        Some(self.cased(printed.as_str()))
    }

    fn cased(&self, text: &str) -> String {
        let upper = |c: char| match c.to_uppercase() {
            one if one.len() == 1 => one.last().unwrap_or(c),
            _ => c, // C's towupper has no longer forms
        };
        if self.upper { text.chars().map(upper).collect() } else { text.into() }
    }

    fn name(&self, name: &str) -> String {
        if self.upper || self.swap { name.to_uppercase() } else { name.into() }
    }

    /// Whether a width is filled with zeros: before numbers, unless a flag or the directive says otherwise.
    fn pads_with_zeros(&self) -> bool {
        let is_number = self.code.is_some_and(|code| "CdGgHIjMmSuUVwWYy".contains(code));
        self.pad.map_or(is_number && self.is_allowed(), |pad| pad == '0')
    }

    fn number(&self, number: i64, digits: usize) -> String {
        self.padded(number, digits, self.pad)
    }

    /// A number of two digits that has a space in place of a zero.
    fn spaced(&self, number: i64) -> String {
        self.padded(number, 2, if matches!(self.pad, Some('0' | '-')) { self.pad } else { Some('_') })
    }

    fn padded(&self, number: i64, digits: usize, pad: Option<char>) -> String {
        match pad {
            Some('-') => number.to_string(),
            Some('_') => format!("{number:>digits$}"),
            _ => format!("{number:0digits$}"),
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

#[cfg(test)]
#[path = "../../../tests/unit/jinja_strftime.rs"]
mod tests;
