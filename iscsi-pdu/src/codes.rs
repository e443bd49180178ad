//! One macro for the enumerations that travel as a code on the wire.

/// Declares an enumeration with `code()` and `from_code()`.
///
/// With `else Other` every code has a value (what we received from a peer that may know more than we do); without, an
/// unknown code is `None` and the PDU's parser refuses it.
macro_rules! wire_codes {
    ($(#[$meta:meta])* $name:ident : $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $code:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $code),+ }

        impl $name {
            /// Every value, in the order of the standard.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The value on the wire.
            #[must_use]
            pub fn code(self) -> $repr {
                self as $repr
            }

            /// The meaning of a value on the wire, if the standard gives it one.
            #[must_use]
            pub fn from_code(code: $repr) -> Option<Self> {
                match code { $($code => Some($name::$variant),)+ _ => None }
            }
        }
    };
    ($(#[$meta:meta])* $name:ident : $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $code:literal),+ $(,)? } else Other) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vmeta])* $variant,)+
            /// A value the standard does not define (or leaves to vendors). Never holds one of the codes above when it
            /// comes from `from_code`.
            Other($repr),
        }

        impl $name {
            /// Every value the standard names, in its order.
            pub const ALL: &[$name] = &[$($name::$variant),+];

            /// The value on the wire.
            #[must_use]
            pub fn code(self) -> $repr {
                match self { $($name::$variant => $code,)+ $name::Other(code) => code }
            }

            /// The meaning of a value on the wire.
            #[must_use]
            pub fn from_code(code: $repr) -> Self {
                match code { $($code => $name::$variant,)+ other => $name::Other(other) }
            }
        }
    };
}
pub(crate) use wire_codes;
