// SPDX-FileCopyrightText: The Tandem authors
// SPDX-License-Identifier: Apache-2.0

//! strftime for chat templates: a moment in UTC, handed in, to text. English names, the usual fields only.

const MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

struct Moment {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: usize,
    second_of_day: i64,
}

/// Civil date of a count of days since 1970-01-01, in years that begin in March so that the leap day comes last.
fn moment(unix_seconds: i64) -> Moment {
    let days = unix_seconds.div_euclid(86_400);
    let shifted = days + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = shifted.div_euclid(146_097); // days of 400 years
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let from_march = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * from_march + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let day_of_year = if month > 2 { from_march + 60 + i64::from(leap) } else { from_march - 305 };
    Moment {
        year,
        month,
        day: from_march - (153 * month_from_march + 2) / 5 + 1,
        day_of_year,
        weekday: (days + 3).rem_euclid(7) as usize,
        second_of_day: unix_seconds.rem_euclid(86_400),
    }
}

/// None when the pattern has a field that is not known here.
pub fn strftime(pattern: &str, unix_seconds: i64) -> Option<String> {
    let at = moment(unix_seconds);
    let (hour, minute, second) = (at.second_of_day / 3600, at.second_of_day / 60 % 60, at.second_of_day % 60);
    let (month, weekday) = (MONTHS[at.month as usize - 1], DAYS[at.weekday]);
    let mut text = String::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut field = chars.next()?;
        let unpadded = field == '-';
        if unpadded {
            field = chars.next()?;
        }
        let number = |value: i64, width: usize| if unpadded { value.to_string() } else { format!("{value:0width$}") };
        text += &match field {
            'Y' => at.year.to_string(),
            'y' => number(at.year.rem_euclid(100), 2),
            'm' => number(at.month, 2),
            'd' => number(at.day, 2),
            'e' => format!("{:2}", at.day),
            'j' => number(at.day_of_year, 3),
            'H' => number(hour, 2),
            'I' => number((hour + 11) % 12 + 1, 2),
            'M' => number(minute, 2),
            'S' => number(second, 2),
            'p' => String::from(if hour < 12 { "AM" } else { "PM" }),
            'B' => month.to_string(),
            'b' | 'h' => month[..3].to_string(),
            'A' => weekday.to_string(),
            'a' => weekday[..3].to_string(),
            'F' => format!("{}-{:02}-{:02}", at.year, at.month, at.day),
            'T' => format!("{hour:02}:{minute:02}:{second:02}"),
            'Z' => String::from("UTC"),
            'z' => String::from("+0000"),
            '%' => String::from("%"),
            _ => return None,
        };
    }
    Some(text)
}
