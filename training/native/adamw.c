/* AdamW with bias correction (Loshchilov and Hutter 2019, algorithm 2), as mlx computes it, in one pass over memory.
 *
 * `rate` is the learning rate over 1 - beta1^t, `root` is sqrt(1 - beta2^t), `kept` is 1 - learning rate * decay. The
 * gradient counts `scale` times. The new weights also go to `shown`, if there is one.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

void adamw(float *restrict weight, float *restrict m, float *restrict v, const float *restrict gradient, float *restrict shown, size_t count,
           float scale, float beta1, float beta2, float rate, float root, float kept, float epsilon) {
    float inverse = 1.0f / root, rest1 = 1.0f - beta1, rest2 = 1.0f - beta2;
    for (size_t at = 0; at < count; at++) {
        float g = gradient[at] * scale;
        float first = beta1 * m[at] + rest1 * g, second = beta2 * v[at] + rest2 * g * g;
        m[at] = first;
        v[at] = second;
        weight[at] = weight[at] * kept - rate * first / (sqrtf(second) * inverse + epsilon);
    }
    if (shown) memcpy(shown, weight, count * sizeof(float));
}
