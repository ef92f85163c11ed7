//! What a rehearsal shows: lines while it runs, then text, JSON or a page.

pub mod html;
pub mod json;
pub mod progress;
pub mod text;
