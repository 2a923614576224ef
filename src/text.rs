//! Makes untrusted text safe to keep and to show.

/// The maximum number of characters of an untrusted text.
const LIMIT: usize = 1_000;

/// Cleans a text that an attacker may have chosen.
///
/// It removes control characters, line separators, bidirectional controls, zero-width characters and surrounding white
/// space, and truncates the text to 1,000 characters. Returns `None` if nothing is left. The result must still be
/// escaped where it is shown.
pub(crate) fn untrusted(text: &str) -> Option<String> {
    let kept: String = text.chars().filter(|&character| !is_hidden(character)).take(LIMIT).collect();
    let trimmed = kept.trim();
    if trimmed.len() == kept.len() {
        return (!kept.is_empty()).then_some(kept);
    }
    (!trimmed.is_empty()).then(|| trimmed.to_owned())
}

/// Whether a character is invisible, but changes how its neighbours are shown or where a line ends.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_removed() {
        assert_eq!(untrusted("a\u{202e}b\u{200b}c\nd\u{2028}e\u{7}f\u{1b}[31m").unwrap(), "abcdef[31m");
    }

    #[test]
    fn ordinary_text_of_any_language_is_kept() {
        for text in ["Schritt 2 von 3: Prüfung läuft", "確認中です", "3 من 5"] {
            assert_eq!(untrusted(text).unwrap(), text);
        }
    }

    #[test]
    fn a_text_of_hidden_characters_counts_as_absent() {
        assert_eq!(untrusted(" \u{200b}\n "), None);
        assert_eq!(untrusted(""), None);
    }

    #[test]
    fn a_long_text_is_truncated_by_characters() {
        assert_eq!(untrusted(&"ü".repeat(5_000)).unwrap().chars().count(), 1_000);
    }
}
