//! All rules, by family.

mod flags;
mod hooks;
mod jobs;
mod mesh;
mod probes;
mod rollout;
mod services;
mod sidecar;
mod times;

use super::rule::Rule;

/// Every rule, by id.
pub fn all() -> Vec<&'static Rule> {
    let families: [&[Rule]; 9] = [
        times::RULES,
        hooks::RULES,
        sidecar::RULES,
        flags::RULES,
        probes::RULES,
        rollout::RULES,
        services::RULES,
        mesh::RULES,
        jobs::RULES,
    ];
    let mut rules: Vec<_> = families.into_iter().flatten().collect();
    rules.sort_by_key(|rule| rule.id);
    rules
}

/// The rule of an id.
pub fn by_id(id: &str) -> Option<&'static Rule> {
    all()
        .into_iter()
        .find(|rule| rule.id.eq_ignore_ascii_case(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_without_a_gap() {
        for (index, rule) in all().iter().enumerate() {
            assert_eq!(rule.id, format!("GK{:03}", index + 1));
        }
    }

    #[test]
    fn every_remedy_is_yaml() {
        for rule in all() {
            let stream = crate::podspec::Stream::parse(rule.remedy.to_owned());
            assert!(stream.errors.is_empty(), "{}: {:?}", rule.id, stream.errors);
            assert!(!stream.documents.is_empty(), "{}", rule.id);
        }
    }

    #[test]
    fn every_summary_is_one_sentence() {
        for rule in all() {
            assert!(!rule.summary.ends_with('.'), "{}", rule.id);
            assert!(
                rule.why.ends_with('.') || rule.why.ends_with(')'),
                "{}",
                rule.id
            );
        }
    }
}
