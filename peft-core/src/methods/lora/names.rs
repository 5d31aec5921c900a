//! Names that the files of LoRA share.

/// The method's name, for messages.
pub(super) const NAME: &str = "LoRA";

/// Ends the name of a base weight that is in the file.
pub(super) const BASE: &str = ".base_layer.weight";
