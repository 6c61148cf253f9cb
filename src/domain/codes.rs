//! The codes of an enum: one table gives the code of each value and the list of all codes, so that neither lacks one.

/// Defines `CODES` and `code` in an `impl` of the enum.
macro_rules! codes {
    ($($pattern:pat => $code:literal),+ $(,)?) => {
        /// All codes there are.
        pub const CODES: &[&str] = &[$($code),+];

        /// The code, by which programs tell error lines apart.
        #[must_use]
        pub fn code(&self) -> &'static str {
            match self {
                $($pattern => $code),+
            }
        }
    };
}

pub(super) use codes;
