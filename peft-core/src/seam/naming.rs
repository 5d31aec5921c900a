//! What messages call a method that does not say its name.

use std::any::type_name;

/// The name of a type without the path to it: `Scale` of `mine::methods::Scale`.
pub(crate) fn short_name<T: ?Sized>() -> &'static str {
    let name = type_name::<T>();
    let plain = name.split('<').next().unwrap_or(name);
    plain.rsplit("::").next().unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_arguments_are_left_out() {
        struct Scale<T>(T);
        let scale = Scale(vec![0u8]);
        fn of<T: ?Sized>(_: &T) -> &'static str {
            short_name::<T>()
        }
        assert_eq!((of(&scale), of(&scale.0), of("x")), ("Scale", "Vec", "str"));
    }
}
