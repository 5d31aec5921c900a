//! What a method sees: a site of the model with its frozen weights, the store of its own parameters, and the traits that
//! it implements. For authors of methods.
//!
//! The law that holds all of it together, for every method that can be merged:
//!
//! `forward(x) == kernel(x; reweight(base))`

pub(crate) mod attention;
pub(crate) mod batch;
pub(crate) mod cache;
pub(crate) mod dims;
pub(crate) mod documents;
pub(crate) mod init;
pub(crate) mod kernel;
pub(crate) mod layer;
pub(crate) mod low_rank;
pub(crate) mod method;
mod naming;
pub(crate) mod numerics;
pub(crate) mod params;
pub(crate) mod pass;
pub(crate) mod site;
pub(crate) mod stack;
pub(crate) mod twin;

pub use attention::{
    Attended, Attention, AttentionAdapter, AttentionInner, Heads, Project, causal_mask, open_keys,
};
pub use batch::{Batch, Data, Input, Prompt};
pub use cache::KvCache;
pub use dims::{Dims, TaskType, Transformer};
pub use documents::Documents;
pub use init::Init;
pub use kernel::{Base, Kernel, OwnKernel, Weights};
pub use layer::{Adapter, Block, Body, Inner, Layer};
pub use low_rank::LowRank;
pub use method::{Counting, FactorNames, Method, MethodConfig, Overlay, Resolved};
pub use numerics::Numerics;
pub use params::Params;
pub use pass::{Pass, Wanted};
pub use site::{Outline, PREFIX, Place, Role, Site, SiteKind, SiteOutline};
pub use stack::Stack;

pub(crate) use attention::attend_to;
pub(crate) use batch::outside;
pub(crate) use low_rank::{Svd, plus};
pub(crate) use method::FileForm;
pub(crate) use params::{is_finite, is_float, numel, phantom};
pub(crate) use twin::Twin;
