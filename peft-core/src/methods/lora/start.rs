//! How LoRA's factors start (`init_lora_weights`).

use crate::error::{Error, Result};
use crate::methods::lora::names::NAME;
use crate::methods::ranks::SiteRank;
use crate::seam::{Init, PREFIX, Params, Site};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How LoRA starts: PEFT's `init_lora_weights`, which is `true`, `false` or a name in the file. Embeddings have one start,
/// A = 0 and B ~ N(0, 1), and draw both for `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "FlagOrName")]
pub enum InitLora {
    /// A ~ N(0, 1/r²), and B = 0.
    Gaussian,
    /// PiSSA, Meng et al. 2024, <https://arxiv.org/abs/2404.02948>, section 3: with `W = U S Vᵀ` cut to rank r and the
    /// scale s, `A₀ = √(S/s) Vᵀ` and `B₀ = U √(S/s)`. The base continues as `W − s·B₀A₀`.
    Pissa,
    /// OLoRA, Büyükakyüz 2024, <https://arxiv.org/abs/2406.01775>: with `W = Q R`, A₀ is R's first r rows and B₀ Q's
    /// first r columns. The base continues as `W − s·B₀A₀`.
    Olora,
    /// `true`: the paper's reference code; `false`: B is drawn too, so the start is not the identity.
    #[serde(untagged)]
    Flag(bool),
}

/// `true`, `false` or a name, as the file has it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum FlagOrName {
    Flag(bool),
    Name(String),
    /// Neither: for the message alone.
    Other(IgnoredAny),
}

const NAMED: [(&str, InitLora); 3] =
    [("gaussian", InitLora::Gaussian), ("pissa", InitLora::Pissa), ("olora", InitLora::Olora)];

impl TryFrom<FlagOrName> for InitLora {
    type Error = String;

    fn try_from(value: FlagOrName) -> std::result::Result<Self, String> {
        let name = match value {
            FlagOrName::Flag(flag) => return Ok(InitLora::Flag(flag)),
            FlagOrName::Name(name) => name,
            FlagOrName::Other(_) => return Err("should be true, false or a name".to_owned()),
        };
        if let Some((_, init)) = NAMED.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
            return Ok(*init);
        }
        let why = match name.starts_with("pissa_niter_") {
            true => ": its randomised factors could not be found again when the adapter is loaded",
            false => "",
        };
        let known = "true, false, \"gaussian\", \"pissa\" and \"olora\" are";
        Err(format!("{known}, others are not supported{why}"))
    }
}

/// How the factors of a linear layer start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Start {
    /// A and B are drawn.
    Drawn(Init, Init),
    /// A₀ and B₀ are computed from W.
    Taken(Decomposition),
}

/// How A₀ and B₀ come from W; see [`InitLora`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decomposition {
    Pissa,
    /// PEFT forgets that a `Conv1D` stores Wᵀ and changes the model there; here W is W.
    Olora,
}

impl InitLora {
    /// The start of a linear layer's factors of rank `r`.
    pub(super) fn start(self, r: i64) -> Start {
        match self {
            InitLora::Flag(true) => Start::Drawn(Init::KaimingUniform, Init::Zeros),
            InitLora::Flag(false) => Start::Drawn(Init::KaimingUniform, Init::KaimingUniform),
            InitLora::Gaussian => Start::Drawn(Init::Normal { std: 1.0 / r as f64 }, Init::Zeros),
            InitLora::Pissa => Start::Taken(Decomposition::Pissa),
            InitLora::Olora => Start::Taken(Decomposition::Olora),
        }
    }
}

impl Decomposition {
    /// A₀ `[k, in]` and B₀ `[out, k]` of the site's weight, k = min(r, in, out). They are the adapter's state: computed
    /// when it is added or loaded, and never again.
    pub(super) fn of(
        self,
        site: &Site<'_>,
        [out, inp]: [i64; 2],
        params: &Params,
        rank: SiteRank,
    ) -> Result<(Tensor, Tensor)> {
        let (k, s) = (rank.r.min(out).min(inp), rank.scaling);
        let name = |leaf: &str| format!("{PREFIX}{}.{leaf}", site.name);
        let make = || -> Result<(Tensor, Tensor)> {
            let _guard = tch::no_grad_guard();
            let w = site.weight()?.f_to_kind(Kind::Float)?;
            match self {
                Decomposition::Pissa => {
                    if s <= 0.0 {
                        let message = format!("`{}`: pissa needs a positive scale, which is {s}", site.name);
                        return Err(Error::config(NAME, "lora_alpha", message));
                    }
                    // In f32 as PEFT, whose rounding the trained factors were made for.
                    let (u, values, v) = w.f_svd(true, true)?;
                    let root = values.f_narrow(0, 0, k)?.f_div_scalar(s)?.f_sqrt()?;
                    let a = v.f_narrow(1, 0, k)?.f_mul(&root)?.f_tr()?.f_contiguous()?;
                    Ok((a, u.f_narrow(1, 0, k)?.f_mul(&root)?))
                }
                Decomposition::Olora => {
                    let (q, r) = Tensor::f_linalg_qr(&w, "reduced")?;
                    Ok((r.f_narrow(0, 0, k)?.f_contiguous()?, q.f_narrow(1, 0, k)?.f_contiguous()?))
                }
            }
        };
        let a = params.derived_of(&name("start_A"), &[k, inp], || {
            let (a, b) = make()?;
            params.set_derived(&name("start_B"), b.f_to(params.device())?);
            Ok(a)
        })?;
        let missing = || Err(Error::Input(format!("{}: no start of `{}`", params.label(), site.name)));
        Ok((a, params.derived_of(&name("start_B"), &[out, k], missing)?))
    }
}
