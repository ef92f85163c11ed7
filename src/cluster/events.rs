//! Events about our own pod, as `kubectl describe` shows them.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::Access;

/// The name of the reporting controller.
pub const CONTROLLER: &str = "gracekeeper";

/// What the API server takes at most: of a note in bytes, of a reporting instance's name in characters
/// (pkg/apis/core/validation/events.go).
const LONGEST_NOTE: usize = 1024;
const LONGEST_INSTANCE: usize = 128;

/// How much of the pod's name an Event's own name has, which may have 253 characters.
const LONGEST_PREFIX: usize = 220;

/// What happened, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A drain began.
    DrainStarted,
    /// It ended because the work was done.
    Drained,
    /// Its time was up.
    DrainDeadlineExceeded,
    /// It was ended by hand.
    DrainReleased,
    /// A source was unreadable, and the policy says to go on.
    DrainBlind,
    /// The count was stuck, and the policy says to go on.
    DrainStuck,
    /// A source cannot be read.
    SourceUnreadable,
    /// Flags or variables were wrong, and defaults are used.
    ConfigurationMistake,
    /// Requests were cut off.
    RequestsCut,
    /// The pod serves again.
    Reopened,
}

impl Reason {
    /// Its name in an Event.
    pub fn name(self) -> &'static str {
        match self {
            Reason::DrainStarted => "DrainStarted",
            Reason::Drained => "Drained",
            Reason::DrainDeadlineExceeded => "DrainDeadlineExceeded",
            Reason::DrainReleased => "DrainReleased",
            Reason::DrainBlind => "DrainBlind",
            Reason::DrainStuck => "DrainStuck",
            Reason::SourceUnreadable => "SourceUnreadable",
            Reason::ConfigurationMistake => "ConfigurationMistake",
            Reason::RequestsCut => "RequestsCut",
            Reason::Reopened => "Reopened",
        }
    }

    /// What was being done.
    fn action(self) -> &'static str {
        match self {
            Reason::SourceUnreadable | Reason::ConfigurationMistake => "Check",
            Reason::Reopened => "Reopen",
            _ => "Drain",
        }
    }

    fn is_warning(self) -> bool {
        match self {
            Reason::DrainStarted | Reason::Drained | Reason::DrainReleased | Reason::Reopened => {
                false
            }
            Reason::DrainDeadlineExceeded
            | Reason::DrainBlind
            | Reason::DrainStuck
            | Reason::SourceUnreadable
            | Reason::ConfigurationMistake
            | Reason::RequestsCut => true,
        }
    }
}

/// An Event to write.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub reason: Reason,
    pub text: String,
    /// When it happened.
    pub at: Timestamp,
}

impl NewEvent {
    pub(super) fn object(&self, access: &Access) -> Event {
        let ends = self.text.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = ends.take_while(|&end| end <= LONGEST_NOTE).last();
        let instance = (access.pod.chars()).take(LONGEST_INSTANCE).collect();
        let prefix: String = (access.pod.chars()).take(LONGEST_PREFIX).collect();
        let prefix = prefix.trim_end_matches(['-', '.']);
        let kind = match self.reason.is_warning() {
            true => "Warning",
            false => "Normal",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}.{:x}", self.at.as_nanosecond())),
                namespace: Some(access.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(self.at)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance),
            action: Some(self.reason.action().to_owned()),
            reason: Some(self.reason.name().to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(access.pod.clone()),
                namespace: Some(access.namespace.clone()),
                uid: access.uid.clone(),
                ..ObjectReference::default()
            }),
            note: Some(self.text[..end.unwrap_or_default()].to_owned()),
            type_: Some(kind.to_owned()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_about_our_own_pod_and_within_what_the_api_server_takes() {
        let access = Access {
            host: "10.0.0.1".to_owned(),
            port: 443,
            service_account: "/x".into(),
            namespace: "shops".to_owned(),
            pod: "a".repeat(253),
            uid: Some("u".to_owned()),
        };
        let new = NewEvent {
            reason: Reason::RequestsCut,
            text: "é".repeat(600),
            at: "2026-11-24T12:00:00Z".parse().unwrap(),
        };
        let event = new.object(&access);
        assert_eq!(event.note.unwrap().len(), 1024);
        assert_eq!(event.reporting_instance.unwrap().len(), 128);
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        let pod = event.regarding.unwrap();
        assert_eq!(
            (pod.uid.as_deref(), pod.name),
            (Some("u"), Some(access.pod))
        );
        assert!(event.metadata.name.unwrap().len() <= 253);
    }
}
