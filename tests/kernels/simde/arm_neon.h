/* NEON on another CPU by Debian's SIMDe, for builds with sanitizers: ops/neon.h then takes armv7's way, the one without
 * assembly. Below stands what SIMDe 0.7.4 lacks of that. */
#ifndef KLAUS_TESTS_ARM_NEON_H
#define KLAUS_TESTS_ARM_NEON_H
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/arm/neon.h>
#include <string.h>

#ifndef vmlaq_lane_f32
#define vmlaq_lane_f32(sum, vector, scalars, lane) vmlaq_f32(sum, vector, vdupq_lane_f32(scalars, lane))
#endif
#ifndef vfmsq_f32
#define vfmsq_f32(sum, a, b) vfmaq_f32(sum, vnegq_f32(a), b)
#endif
#ifndef vreinterpret_f16_u8
static inline float16x4_t vreinterpret_f16_u8(uint8x8_t bytes) {
    float16x4_t halves;
    _Static_assert(sizeof(halves) == sizeof(bytes), "four halves are eight bytes");
    memcpy(&halves, &bytes, sizeof(halves));
    return halves;
}
#endif

#endif
