/* MKL asks what made the processor, and has other kernels, which sum in another order, where it was not Intel. Loaded
 * before it, this says yes, and an AMD processor with AVX-512 computes the bits of the lessons' goldens:
 *
 *     cc -shared -fPIC -o target/intel_kernels.so scripts/intel_kernels.c
 *     LD_PRELOAD=$PWD/target/intel_kernels.so cargo test -p notebooks-rs
 */

int mkl_serv_intel_cpu(void) { return 1; }
int mkl_serv_intel_cpu_true(void) { return 1; }
