//! Enters: positive numbers. Leaves: logarithms of the gamma and the beta function.

/// From here on Stirling's series is exact to the last bits.
const STIRLING_FROM: f64 = 12.0;

/// The logarithm of the gamma function of a positive number.
///
/// Stirling's series, NIST Digital Library of Mathematical Functions, 5.11.1, with four terms; smaller numbers are lifted
/// by the recurrence 5.5.1 first.
fn ln_gamma(x: f64) -> f64 {
    let mut lifted = x;
    let mut product = 1.0;
    while lifted < STIRLING_FROM {
        product *= lifted;
        lifted += 1.0;
    }
    let inverse = 1.0 / lifted;
    let square = inverse * inverse;
    let series = inverse
        * (1.0 / 12.0
            - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0))));
    let half_ln_two_pi = 0.918_938_533_204_672_8;
    (lifted - 0.5) * lifted.ln() - lifted + half_ln_two_pi + series - f64::ln(product)
}

/// The logarithm of the beta function of two positive numbers.
pub(super) fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_of_integers_is_the_factorial() {
        let mut factorial = 1.0_f64;
        for n in 1..30_u32 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-12, "{n}");
            factorial *= f64::from(n);
        }
    }

    #[test]
    fn gamma_of_a_half_is_the_root_of_pi() {
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
    }

    #[test]
    fn beta_of_one_and_n_is_its_inverse() {
        assert!((ln_beta(1.0, 1e6) + 1e6_f64.ln()).abs() < 1e-8);
    }
}
