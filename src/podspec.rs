//! What manifests say of pods: objects and pod specs with the place of each field, and changes to them as text edits.
//!
//! A manifest is read into a tree that keeps every field and the bytes it stands in ([`document`]). The facts of
//! Kubernetes are looked up in that tree ([`object`], [`pod`], [`container`]), and a change is an edit of the text
//! ([`edit`]): comments, order and unknown fields stay as they are. JSON is read by the same parser, since it is YAML.

pub mod container;
pub mod document;
pub mod edit;
pub mod lines;
pub mod object;
pub mod pod;

pub use container::{Action, Container, Handler, Port, Probe, Role};
pub use document::{Document, Node, Stream};
pub use object::Object;
pub use pod::Pod;
