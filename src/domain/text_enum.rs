//! Enums that are texts on the wire and in the database.

/// Declares an enum whose every variant has a text. `as_str` and `Display` print it, `parse` reads exactly it, and
/// `ALL` has the variants in their order. The documentation of a variant ends with its text.
macro_rules! text_enum {
    (
        $(#[$about:meta])*
        pub enum $name:ident {
            $($(#[$about_variant:meta])* $variant:ident = $text:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(
                $(#[$about_variant])*
                #[doc = concat!("`", $text, "`")]
                $variant,
            )+
        }

        impl $name {
            /// Every variant, in the order of its declaration.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            /// The text on the wire and in the database.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The variant with exactly this text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(super) use text_enum;

#[cfg(test)]
mod tests {
    text_enum! {
        /// Two of several sizes.
        pub enum Size {
            /// Hand luggage.
            Small = "small",
            Large = "x-large",
        }
    }

    #[test]
    fn texts_survive_printing_and_parsing() {
        assert_eq!(Size::ALL.map(|size| size.to_string()), ["small", "x-large"]);
        assert_eq!(Size::ALL.map(|size| Size::parse(size.as_str())), Size::ALL.map(Some));
        assert_eq!(["Small", "small ", ""].map(Size::parse), [None; 3]);
    }
}
