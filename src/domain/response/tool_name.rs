//! The names under which a model sees the tools of MCP servers.

/// The name of the function that stands for the tool `name` of an MCP server: `{server_label}__{name}`. A function name
/// may have 64 letters, digits, `_` and `-`. If that name is not valid, or another tool could have it too, it is made
/// valid and ends in a hash of both names. The hash must never change: names are kept in databases.
#[must_use]
pub fn mcp_function_name(server_label: &str, name: &str) -> String {
    const LONGEST: usize = 64;

    let whole = format!("{server_label}__{name}");
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_ambiguous = server_label.contains("__") || server_label.ends_with('_');
    if whole.len() <= LONGEST && whole.chars().all(is_allowed) && !is_ambiguous {
        return whole;
    }
    let hash = format!("_{:08x}", hash(server_label, name));
    let allowed = whole.chars().map(|c| if is_allowed(c) { c } else { '_' });
    allowed.take(LONGEST - hash.len()).chain(hash.chars()).collect()
}

/// FNV-1a, so that the hash does not depend on the version of a library.
fn hash(server_label: &str, name: &str) -> u32 {
    let bytes = server_label.bytes().chain([0]).chain(name.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_functions_can_have_stays_readable() {
        assert_eq!(mcp_function_name("deep-wiki", "ask_question"), "deep-wiki__ask_question");
        assert_eq!(mcp_function_name("a", "_b"), "a___b");
        let longest = "n".repeat(61);
        assert_eq!(mcp_function_name("s", &longest), format!("s__{longest}"));
    }

    #[test]
    fn any_other_name_is_made_one_and_ends_in_a_hash_that_never_changes() {
        for (server_label, name, expected) in [
            ("s", "get.weather", "s__get_weather_e6612c18"),
            ("Größe", "n", "Gr__e__n_3228e920"),
            ("a_", "b", "a___b_85ddbceb"),
        ] {
            assert_eq!(mcp_function_name(server_label, name), expected);
        }
    }

    #[test]
    fn different_tools_have_different_names() {
        let long = "n".repeat(80);
        let tools = [("a", "b__c"), ("a__b", "c"), ("a", "b.c"), ("a", "b:c"), ("s", &long), ("s", &long[1..])];

        let names: std::collections::BTreeSet<_> =
            tools.iter().map(|(server_label, name)| mcp_function_name(server_label, name)).collect();

        assert_eq!(names.len(), tools.len());
        assert!(names.iter().all(|name| name.len() <= 64), "{names:?}");
    }
}
