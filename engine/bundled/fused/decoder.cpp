// One pass of a Llama-like decoder over packed tokens and paged keys and values, for CPUs with AVX-512 or AVX2.
//
// Does not know scheduling or drawing. A token's numbers do not depend on which other tokens are in the batch: every
// sum runs in one order, whatever the number of rows or threads. The residual stream is float32; T (float or bf16) is
// what products read. "Lanes" are the columns or positions of one register; a "step" is the smallest run of inner
// indices a product consumes (one float, or a pair of bf16).

#include "lanes.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

namespace {

constexpr int PANEL = LANES * VECTORS, QUERY_ROWS = 4;

int ceil_div(int a, int b) { return (a + b - 1) / b; }

template <class X>
struct Buffer {  // 64-byte aligned, grows only, never shrinks
  X* data = nullptr;
  size_t size = 0;
  X* reserve(size_t wanted) {
    if (wanted > size) {
      std::free(data);
      size_t bytes = (wanted * sizeof(X) + 63) / 64 * 64;
      data = static_cast<X*>(std::aligned_alloc(64, bytes));
      std::memset(static_cast<void*>(data), 0, bytes);
      size = wanted;
    }
    return data;
  }
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data(other.data), size(other.size) { other.data = nullptr; }
  ~Buffer() { std::free(data); }
};

// ---- numbers ----------------------------------------------------------------------------------------------------

using bf16 = uint16_t;

template <class T>
struct Number;

template <>
struct Number<float> {
  using Sum = Floats;
  static constexpr int STEP = 1;
  static Floats widen(const float* p, Mask m = ALL) { return load(p, m); }
  static void narrow(float* p, Floats x, Mask m = ALL) { store(p, x, m); }
  static Ints broadcast(const float* p) { return bits_of(splat(*p)); }
  static Floats madd(Floats sum, Ints a, Ints b) {
    return fused(from_bits(a), from_bits(b), sum);
  }
  static void store_two(float* p, Floats low, Floats high) {
    store(p, low);
    store(p + LANES, high);
  }
  template <class Stored>
  static Ints step(const typename Stored::Code* p) {  // one step of 16 lanes
    return bits_of(Stored::widen(p));
  }
};

template <>
struct Number<bf16> {
  using Sum = Floats;
  static constexpr int STEP = 2;
  static Floats widen(const bf16* p, Mask m = ALL) { return from_bits(left<16>(load_words(p, m))); }
  static void narrow(bf16* p, Floats x, Mask m = ALL) { store_bf16(p, x, m); }
  static Ints broadcast(const bf16* p) {
    int pair;
    std::memcpy(&pair, p, sizeof pair);
    return splat(pair);
  }
  static Floats madd(Floats sum, Ints a, Ints b) { return add_pairs(sum, a, b); }
  static void store_two(bf16* p, Floats low, Floats high) { store_all(p, join_bf16(low, high)); }
  template <class Stored>
  static Ints step(const typename Stored::Code* p) {
    return join_bf16(Stored::widen(p), Stored::widen(p + LANES));
  }
};

template <>
struct Number<uint8_t> {  // int8 activations, 128 added, against int8 weights
  using Sum = Ints;
  static constexpr int STEP = 4;
  static Ints broadcast(const uint8_t* p) {
    int four;
    std::memcpy(&four, p, sizeof four);
    return splat(four);
  }
  static Ints madd(Ints sum, Ints a, Ints b) { return add_fours(sum, a, b); }
};

// Numbers stored in eight bits: value = code * FACTOR, times a scale where one is kept.
struct Int8 {
  using Code = int8_t;
  static constexpr bool SCALED = true;
  static constexpr float FACTOR = 1.f, LARGEST = 127.f;
  static Floats widen(const Code* p) { return to_floats(load_bytes(p)); }
  static void narrow(Code* p, Floats x, Mask m = ALL) { store_bytes(p, to_ints(x), m); }
};

struct Fp8 {  // e4m3: a half float's bits, shifted, but for the exponent's bias of 8 more
  using Code = uint8_t;
  static constexpr bool SCALED = false;
  static constexpr float FACTOR = 256.f, LARGEST = 448.f;
  static Floats widen(const Code* p) { return load_halves_of_fp8(p); }
  // Nearest code, ties to even. Below 2^-6 codes count steps of 2^-9, which adding 2^14 rounds to.
  static Ints encode(Floats x) {
    const Floats least_normal = splat(0x1p-6f), magic = splat(0x1p14f);
    Floats size = smaller(size_of(x), splat(LARGEST));
    Ints bits = bits_of(size), odd = both(right<20>(bits), splat(1));
    Ints normal = right<20>(plus(plus(bits, splat(0x7ffff)), odd));
    Ints small = minus(bits_of(size + magic), bits_of(magic));
    Ints code = where_less(size, least_normal, small, minus(normal, splat(120 << 3)));
    return either(code, left<7>(right<31>(bits_of(x))));
  }
  static void narrow(Code* p, Floats x, Mask m = ALL) { store_bytes(p, encode(x), m); }
};

template <class T>
struct AsComputed {
  using Code = T;
  static constexpr bool SCALED = false;
  static constexpr float FACTOR = 1.f;
  static Floats widen(const T* p) { return Number<T>::widen(p); }
  static void narrow(T* p, Floats x, Mask m = ALL) { Number<T>::narrow(p, x, m); }
};

template <class T>
float scale_of(const T* x, int size, float largest_code) {
  Floats top = zeros();
  for (int i = 0; i < size; i += LANES) top = larger(top, size_of(Number<T>::widen(x + i, first_lanes(size - i))));
  return std::max(largest_of(top), 1e-12f) / largest_code;
}

// exp(x) for x <= 88, 0 below -104; relative error under 2e-7 (Cephes' polynomial on [-ln 2 / 2, ln 2 / 2]).
Floats exponential(Floats x) {
  x = larger(x, splat(-104.f));
  Floats n = whole(x * splat(1.44269504f));
  Floats r = fused_minus(n, splat(0.693359375f), x);
  r = fused_minus(n, splat(-2.12194440e-4f), r);
  Floats p = splat(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = fused(p, r, splat(c));
  return times_power(fused(r * r, p, r) + splat(1.f), n);
}

float mean_square(const float* x, int size) {
  Floats sum = zeros();
  for (int i = 0; i < size; i += LANES) {
    Floats v = Number<float>::widen(x + i, first_lanes(size - i));
    sum = fused(v, v, sum);
  }
  return sum_of(sum) / size;
}

template <class Out>
void rms_norm(Out* out, const float* x, const float* weight, int size, float eps) {
  Floats factor = splat(1.f / std::sqrt(mean_square(x, size) + eps));
  for (int i = 0; i < size; i += LANES) {
    Mask m = first_lanes(size - i);
    Floats v = Number<float>::widen(x + i, m) * factor * Number<float>::widen(weight + i, m);
    Number<Out>::narrow(out + i, v, m);
  }
}

template <class T>
void swiglu(T* out, const float* gate, const float* up, int size) {
  const Floats one = splat(1.f);
  for (int i = 0; i < size; i += LANES) {
    Mask m = first_lanes(size - i);
    Floats g = Number<float>::widen(gate + i, m), u = Number<float>::widen(up + i, m);
    Floats e = exponential(smaller(zeros() - g, splat(88.f)));
    Number<T>::narrow(out + i, g / (one + e) * u, m);
  }
}

// ---- matrices ---------------------------------------------------------------------------------------------------

enum Kind { DENSE = 0, INT8 = 1, INT4 = 2, FP8 = 3, INT8_INT8 = 4, FP8_FP8 = 5 };  // weights, and rows where 8-bit

// What a LoRA adapter adds to columns first..first + count of a product: b^T (a x), the scale in b.
struct LowRank {
  int rank, first, count;
  Buffer<float> a, b;  // [rank][k], [rank][count]
};

template <class T>
void add_low_rank(const LowRank& part, const T* x, int k, float* y) {
  for (int r = 0; r < part.rank; r++) {
    const float *a = part.a.data + static_cast<size_t>(r) * k, *b = part.b.data + static_cast<size_t>(r) * part.count;
    Floats sum = zeros();
    for (int i = 0; i < k; i += LANES) {
      Mask m = first_lanes(k - i);
      sum = fused(Number<T>::widen(x + i, m), Number<float>::widen(a + i, m), sum);
    }
    Floats inner = splat(sum_of(sum));
    for (int i = 0; i < part.count; i += LANES) {
      Mask m = first_lanes(part.count - i);
      float* to = y + part.first + i;
      Number<float>::narrow(to, fused(inner, Number<float>::widen(b + i, m), Number<float>::widen(to, m)), m);
    }
  }
}

// y = x W^T (+ bias). Columns are packed in panels of 64: [panel][step][vector][lane][index in step], so that a
// product reads its weights in order, 64 bytes a vector. Int8 and fp8 keep that order in bytes; int4 two neighbouring
// vectors' worth in 16 bytes. Where rows are int8 too, a step is four bytes and nothing is unpacked.
template <class T>
struct Linear {
  static constexpr int STEP = Number<T>::STEP, CHUNK = 2 * LANES;
  Kind kind = DENSE;
  int n = 0, k = 0, steps = 0, panels = 0, group = 0;
  Buffer<T> dense;
  Buffer<uint8_t> packed;
  Buffer<float> scale, zero, bias;  // scale: [n] for 8 bits; scale and zero [k / group][panels * 64] for int4
  Buffer<int> shift;                // [n] what adding 128 to every int8 input adds to the sums
  bool has_bias = false;
  std::vector<std::vector<LowRank>> adapters;  // by number

  void add_adapter(int number, int rank, int first, int count, const float* a, const float* b) {
    if (static_cast<int>(adapters.size()) <= number) adapters.resize(number + 1);
    LowRank part{rank, first, count, {}, {}};
    std::copy(a, a + static_cast<size_t>(rank) * k, part.a.reserve(static_cast<size_t>(rank) * k));
    std::copy(b, b + static_cast<size_t>(rank) * count, part.b.reserve(static_cast<size_t>(rank) * count));
    adapters[number].push_back(std::move(part));
  }

  bool scales_columns() const { return kind != DENSE && kind != INT4; }
  int step() const { return kind == INT8_INT8 ? 4 : STEP; }
  size_t panel_size() const { return static_cast<size_t>(steps) * step() * PANEL; }

  size_t place(int column, int input) const {  // of weight [column][input] in packed order
    size_t panel = column / PANEL, lane = column % PANEL;
    return panel * panel_size() + (static_cast<size_t>(input / step()) * PANEL + lane) * step() + input % step();
  }

  void pack(Kind kind_, int n_, int k_, const void* weight, const float* scales, const float* zeros, int group_,
            const float* biases) {
    kind = kind_, n = n_, k = k_, group = group_;
    panels = ceil_div(n, PANEL);
    steps = kind == INT8_INT8 ? ceil_div(k, 4) : ceil_div(k, 2) * 2 / STEP;  // even, so that int4 packs whole chunks
    if (kind == DENSE) {
      T* to = dense.reserve(panels * panel_size());
      for (int column = 0; column < n; column++)
        for (int i = 0; i < k; i++) to[place(column, i)] = static_cast<const T*>(weight)[static_cast<size_t>(column) * k + i];
    } else if (kind != INT4) {
      const uint8_t* from = static_cast<const uint8_t*>(weight);
      uint8_t* to = packed.reserve(panels * panel_size());
      int* sums = shift.reserve(panels * PANEL);
      float factor = kind == FP8 || kind == FP8_FP8 ? Fp8::FACTOR : 1.f, *s = scale.reserve(panels * PANEL);
      for (int column = 0; column < n; column++) {
        s[column] = scales[column] * factor;
        for (int i = 0; i < k; i++, from++) {
          to[place(column, i)] = *from;
          sums[column] += 128 * static_cast<int8_t>(*from);
        }
      }
    } else {
      uint8_t* to = packed.reserve(panels * panel_size() / 2);
      for (int column = 0; column < n; column++)
        for (int i = 0; i < k; i++) {
          uint8_t byte = static_cast<const uint8_t*>(weight)[(static_cast<size_t>(column) * k + i) / 2];
          size_t at = place(column, i), chunk = at / CHUNK, within = at % CHUNK;
          to[chunk * LANES + within % LANES] |= (i % 2 ? byte >> 4 : byte & 15) << (within >= LANES ? 4 : 0);
        }
      int groups = k / group;
      auto spread = [&](const float* from, Buffer<float>& to) {
        float* p = to.reserve(static_cast<size_t>(groups) * panels * PANEL);
        for (int g = 0; g < groups; g++, from += n, p += panels * PANEL) std::copy(from, from + n, p);
      };
      spread(scales, scale);
      if (zeros) spread(zeros, zero);
    }
    has_bias = biases != nullptr;
    if (has_bias) std::copy(biases, biases + n, bias.reserve(panels * PANEL));
  }

  // The panel's weights as products read them; quantized ones are written to `scratch` (8 bits without their scale).
  const void* panel(int index, T* scratch) const {
    if (kind == DENSE) return dense.data + index * panel_size();
    if (kind == INT8_INT8) return packed.data + index * panel_size();
    if (kind == INT4) return zero.data ? unpack_int4<true>(index, scratch) : unpack_int4<false>(index, scratch);
    return kind == INT8 ? unpack<Int8>(index, scratch) : unpack<Fp8>(index, scratch);
  }

  template <class Stored>
  const T* unpack(int index, T* scratch) const {
    const auto* from = reinterpret_cast<const typename Stored::Code*>(packed.data) + index * panel_size();
    for (size_t i = 0; i < panel_size(); i += CHUNK) Number<T>::store_two(scratch + i, Stored::widen(from + i), Stored::widen(from + i + LANES));
    return scratch;
  }

  template <bool HAS_ZEROS>
  const T* unpack_int4(int index, T* scratch) const {
    constexpr int CHUNKS = PANEL * STEP / CHUNK;  // of one step
    const uint8_t* from = packed.data + index * panel_size() / 2;
    T* to = scratch;
    const Ints fifteen = splat(15);
    const Floats eight = splat(8.f);
    for (int first = 0, g = 0; first < steps; g++) {
      int last = g + 1 < k / group ? std::min(steps, (g + 1) * group / STEP) : steps;
      Floats s[CHUNKS][2], z[CHUNKS][2];
      for (int c = 0; c < CHUNKS; c++) {
        size_t row = static_cast<size_t>(g) * panels * PANEL + index * PANEL + c * CHUNK / STEP;
        columns_of_chunk(scale.data + row, s[c]);
        if (HAS_ZEROS) columns_of_chunk(zero.data + row, z[c]);
      }
      for (; first < last; first++)
#pragma GCC unroll 4
        for (int c = 0; c < CHUNKS; c++, from += LANES, to += CHUNK) {
          Ints bytes = load_bytes(from);
          Floats low = to_floats(both(bytes, fifteen)) - eight;
          Floats high = to_floats(right<4>(bytes)) - eight;
          if (HAS_ZEROS)
            Number<T>::store_two(to, fused(low, s[c][0], z[c][0]), fused(high, s[c][1], z[c][1]));
          else
            Number<T>::store_two(to, low * s[c][0], high * s[c][1]);
        }
    }
    return scratch;
  }

  // Per-column values in the order of a chunk: 2 * LANES columns of one step, or LANES of two inner indices each.
  static void columns_of_chunk(const float* columns, Floats out[2]) {
    Floats first = load(columns);
    if (STEP == 1)
      out[0] = first, out[1] = load(columns + LANES);
    else
      twice(first, out);
  }
};

template <class T>
Floats column_sums(const Linear<T>&, int, Floats sum) { return sum; }
template <class T>
Floats column_sums(const Linear<T>& linear, int column, Ints sum) {
  return to_floats(minus(sum, load(linear.shift.data + column)));
}

template <class A>
struct Rows {  // of a product: A is T, or uint8_t for int8 codes with 128 added
  const A* data;
  int stride, count;
  const float* scales;  // [count], or null
};

template <class T, class A, int R>
void product_tile(const Linear<T>& linear, int panel, const void* weights, const Rows<A>& rows, int first, float* c, int ldc, bool add) {
  using N = Number<A>;
  typename N::Sum sum[R][VECTORS] = {};
  const A* a = rows.data + static_cast<size_t>(first) * rows.stride;
  const char* from = static_cast<const char*>(weights);
  for (int step = 0; step < linear.steps; step++) {
    Ints w[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++, from += sizeof(Ints)) w[v] = load_aligned(from);
#pragma GCC unroll 6
    for (int r = 0; r < R; r++) {
      Ints x = N::broadcast(a + static_cast<size_t>(r) * rows.stride + step * N::STEP);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) sum[r][v] = N::madd(sum[r][v], x, w[v]);
    }
  }
  for (int v = 0; v < VECTORS; v++) {
    int column = panel * PANEL + v * LANES;
    Mask m = first_lanes(linear.n - column);
    for (int r = 0; r < R; r++) {
      Floats y = column_sums(linear, column, sum[r][v]);
      float* to = c + static_cast<size_t>(first + r) * ldc + column;
      if (linear.scales_columns()) y = y * load(linear.scale.data + column);
      if (rows.scales) y = y * splat(rows.scales[first + r]);
      if (linear.has_bias) y = y + load(linear.bias.data + column);
      if (add) y = y + Number<float>::widen(to, m);
      Number<float>::narrow(to, y, m);
    }
  }
}

// The tile of `count` <= R rows.
template <class T, class A, int R = ROWS>
void product_tile_of(int count, const Linear<T>& linear, int panel, const void* weights, const Rows<A>& rows, int first, float* c, int ldc, bool add) {
  if constexpr (R > 1)
    if (count < R) return product_tile_of<T, A, R - 1>(count, linear, panel, weights, rows, first, c, ldc, add);
  product_tile<T, A, R>(linear, panel, weights, rows, first, c, ldc, add);
}

template <class T, class A>
void product_rows(const Linear<T>& linear, int panel, const void* weights, const Rows<A>& rows, int first, int count, float* c, int ldc, bool add) {
  for (int r = first; r < first + count; r += ROWS)
    product_tile_of<T, A>(std::min(ROWS, first + count - r), linear, panel, weights, rows, r, c, ldc, add);
}

struct Worker {  // this thread's number, of how many
  int index, count;
};

// c [rows, n] (+)= a [rows, k] W^T; each worker does its share of panels (and of rows where panels are few).
template <class T, class A>
void product(const Linear<T>& linear, const Rows<A>& rows, float* c, int ldc, bool add, Worker worker, Buffer<T>& scratch) {
  T* room = linear.kind == DENSE || linear.kind == INT8_INT8 ? nullptr : scratch.reserve(linear.panel_size());
  int parts = linear.panels >= worker.count ? 1 : ceil_div(worker.count, linear.panels);
  int share = ceil_div(ceil_div(rows.count, parts), ROWS) * ROWS;
  for (int task = worker.index; task < linear.panels * parts; task += worker.count) {
    int panel = task / parts, first = task % parts * share, count = std::min(share, rows.count - first);
    if (count > 0) product_rows(linear, panel, linear.panel(panel, room), rows, first, count, c, ldc, add);
  }
}

// ---- the decoder ------------------------------------------------------------------------------------------------

struct Shape {
  int num_layers, hidden, num_heads, num_kv_heads, head_dim, intermediate, vocab, num_blocks, block_size, num_threads;
  float eps;
  int qk_norm, kv_format;
};

enum KvFormat { KV_AS_COMPUTED = 0, KV_INT8 = 1, KV_FP8 = 2 };

// Packed tokens of S sequences; `tables` is [S, table_width]; `inputs` [num_tokens, hidden] replace embeddings, or null.
struct Batch {
  int num_tokens, num_sequences, table_width;
  const int64_t *ids, *positions, *slots, *starts, *lengths, *tables;
  const void* inputs;
  // Of tokens in trees: places of the tokens that lead to each and its own, [num_tokens, path_width], how many, and the
  // place of the tree's first token; a length of 0 is a token that sees everything up to itself. Null without trees.
  const int64_t *paths, *path_lengths, *path_starts;
  int64_t path_width;
  const int64_t* adapters;  // [num_sequences], -1 is none; null where nobody has one
};

struct Decoder {
  virtual ~Decoder() = default;
  virtual void set_linear(int layer, int which, Kind kind, int n, int k, const void* w, const float* s, const float* z, int group, const float* bias) = 0;
  virtual void add_adapter(int layer, int which, int number, int rank, int first, int count, const float* a, const float* b) = 0;
  virtual void set_norms(int layer, const float* input, const float* post, const float* qk) = 0;
  virtual void set_ends(const void* embedding, const float* norm, const float* cosines, const float* sines) = 0;
  virtual void forward(const Batch& batch, void* hidden) = 0;
  virtual void logits(const void* hidden, int rows, float* out) = 0;
  virtual void move(const int64_t* sources, const int64_t* targets, int count) = 0;
};

template <class T, class Stored>
struct PagedDecoder : Decoder {
  using N = Number<T>;
  using Code = typename Stored::Code;
  struct Layer {
    Linear<T> qkv, o, gate_up, down;
    std::vector<float> input_norm, post_norm, qk_norm;
    Buffer<Code> keys, values;  // [block][kv head][step of D][lane][index in step], [block][kv head][position][D padded]
    Buffer<float> key_scales, value_scales;  // [block][kv head][position, padded to lanes] where the format has them
  };
  struct Room {  // one thread's
    Buffer<T> weights;
    Buffer<Code> key;
    Buffer<float> scores, head;
    std::vector<const Code*> key_lanes;
    std::vector<const float*> scale_lanes;
  };
  struct Task {  // rows of one sequence and KV head that share their keys
    int sequence, kv_head, row;
  };

  Shape s;
  int q_size, kv_size, group, lanes, padded_dim, dim_steps, deepest = 0;
  std::vector<Layer> layers;
  Linear<T> head;
  std::vector<Room> rooms;
  const T* embedding = nullptr;
  std::vector<float> final_norm;
  const float *cosines = nullptr, *sines = nullptr;  // [positions, D / 2]
  Buffer<float> residual, wide, row_scales;
  Buffer<T> narrow, queries, attended, rounded;
  Buffer<uint8_t> codes;
  std::vector<Task> tasks;
  std::vector<int> token_adapters;  // of each token, -1 is none; empty where nobody has one
  std::unique_ptr<std::atomic<int>[]> next_task;

  explicit PagedDecoder(const Shape& shape) : s(shape), layers(shape.num_layers), rooms(shape.num_threads), next_task(new std::atomic<int>[shape.num_layers]) {
    q_size = s.num_heads * s.head_dim, kv_size = s.num_kv_heads * s.head_dim, group = s.num_heads / s.num_kv_heads;
    lanes = ceil_div(s.block_size, LANES) * LANES;
    padded_dim = ceil_div(s.head_dim, LANES) * LANES;
    dim_steps = s.head_dim / N::STEP;
    for (Layer& layer : layers) {
      layer.keys.reserve(static_cast<size_t>(s.num_blocks) * s.num_kv_heads * lanes * s.head_dim);
      layer.values.reserve(static_cast<size_t>(s.num_blocks) * s.num_kv_heads * s.block_size * padded_dim);
      if (!Stored::SCALED) continue;
      layer.key_scales.reserve(static_cast<size_t>(s.num_blocks) * s.num_kv_heads * lanes);
      layer.value_scales.reserve(static_cast<size_t>(s.num_blocks) * s.num_kv_heads * lanes);
    }
  }

  void set_linear(int layer, int which, Kind kind, int n, int k, const void* w, const float* sc, const float* z, int g, const float* bias) override {
    linear(layer, which).pack(kind, n, k, w, sc, z, g, bias);
  }

  Linear<T>& linear(int layer, int which) {
    Linear<T>* all[] = {&layers[layer].qkv, &layers[layer].o, &layers[layer].gate_up, &layers[layer].down, &head};
    return *all[which];
  }

  void add_adapter(int layer, int which, int number, int rank, int first, int count, const float* a, const float* b) override {
    linear(layer, which).add_adapter(number, rank, first, count, a, b);
  }

  void set_norms(int layer, const float* input, const float* post, const float* qk) override {
    if (input) layers[layer].input_norm.assign(input, input + s.hidden);
    layers[layer].post_norm.assign(post, post + s.hidden);
    if (qk) layers[layer].qk_norm.assign(qk, qk + (s.num_heads + s.num_kv_heads) * s.head_dim);
  }

  void set_ends(const void* table, const float* norm, const float* c, const float* sn) override {
    embedding = static_cast<const T*>(table), cosines = c, sines = sn;
    if (norm) final_norm.assign(norm, norm + s.hidden);
  }

  // Keys of 16 positions lie side by side, so that one product gives 16 scores.
  Code* key_place(Layer& layer, int64_t slot, int kv_head) {
    int64_t block = slot / s.block_size, position = slot % s.block_size;
    return layer.keys.data + ((block * s.num_kv_heads + kv_head) * lanes + position / LANES * LANES) * s.head_dim + position % LANES * N::STEP;
  }

  Code* value_place(Layer& layer, int64_t slot, int kv_head) {
    int64_t block = slot / s.block_size, position = slot % s.block_size;
    return layer.values.data + ((block * s.num_kv_heads + kv_head) * s.block_size + position) * padded_dim;
  }

  size_t scale_place(int64_t slot, int kv_head) const {
    return (slot / s.block_size * s.num_kv_heads + kv_head) * lanes + slot % s.block_size;
  }

  void rotate(float* x, int64_t position) const {
    int half = s.head_dim / 2;
    const float *c = cosines + position * half, *sn = sines + position * half;
    for (int i = 0; i < half; i++) {
      float low = x[i], high = x[i + half];
      x[i] = low * c[i] - high * sn[i];
      x[i + half] = high * c[i] + low * sn[i];
    }
  }

  // Norm, rotate and hand on one token's queries, keys and values, out of qkv [q_size + 2 * kv_size].
  void place_token(Layer& layer, float* qkv, int64_t position, int64_t slot, T* query, Room& room) {
    float* unit = room.head.reserve(padded_dim);
    Code* narrowed = room.key.reserve(padded_dim);
    auto store = [&](Code* to, const float* x, Buffer<float>& scales, int64_t at) {  // one head's key or value
      Floats scale = splat(Stored::SCALED ? scales.data[at] = scale_of(x, s.head_dim, Int8::LARGEST) : 1.f);
      for (int i = 0; i < s.head_dim; i += LANES) {
        Mask m = first_lanes(s.head_dim - i);
        Floats v = Number<float>::widen(x + i, m);
        Stored::narrow(to + i, Stored::SCALED ? v / scale : v, m);
      }
    };
    float factor = 1.f / std::sqrt(static_cast<float>(s.head_dim));
    for (int h = 0; h < s.num_heads + s.num_kv_heads; h++) {
      float* x = qkv + h * s.head_dim;
      if (s.qk_norm) {
        rms_norm(unit, x, layer.qk_norm.data() + h * s.head_dim, s.head_dim, s.eps);
        std::copy(unit, unit + s.head_dim, x);
      }
      rotate(x, position);
      if (h < s.num_heads) {
        for (int i = 0; i < s.head_dim; i += LANES) {
          Mask m = first_lanes(s.head_dim - i);
          N::narrow(query + h * s.head_dim + i, Number<float>::widen(x + i, m) * splat(factor), m);
        }
        continue;
      }
      Code* key = key_place(layer, slot, h - s.num_heads);
      store(narrowed, x, layer.key_scales, scale_place(slot, h - s.num_heads));
      for (int i = 0; i < s.head_dim; i++) key[i / N::STEP * LANES * N::STEP + i % N::STEP] = narrowed[i];
    }
    for (int h = 0; h < s.num_kv_heads; h++)
      store(value_place(layer, slot, h), qkv + q_size + kv_size + h * s.head_dim, layer.value_scales, scale_place(slot, h));
  }

  template <int R, int B>
  void score_lanes(const T* const query[], const Code* const keys[], const float* const scales[], float* const scores[], size_t stride) const {
    Floats sum[R][B];
    for (auto& row : sum)
      for (auto& v : row) v = zeros();
    for (int step = 0; step < dim_steps; step++) {
      Ints k[B];
#pragma GCC unroll 4
      for (int b = 0; b < B; b++) k[b] = N::template step<Stored>(keys[b] + step * LANES * N::STEP);
#pragma GCC unroll 4
      for (int r = 0; r < R; r++) {
        Ints q = N::broadcast(query[r] + step * N::STEP);
#pragma GCC unroll 4
        for (int b = 0; b < B; b++) sum[r][b] = N::madd(sum[r][b], q, k[b]);
      }
    }
    for (int b = 0; b < B; b++) {
      Floats factor = Stored::SCALED ? load(scales[b]) : splat(Stored::FACTOR);
      for (int r = 0; r < R; r++) store(scores[b] + r * stride, sum[r][b] * factor);
    }
  }

  // Scores [R, stride] of `limit` positions; the last block's tail is garbage.
  template <int R>
  void score(const T* const query[], Layer& layer, const int64_t* table, int kv_head, int limit, float* scores, size_t stride, Room& room) {
    auto& keys = room.key_lanes;
    auto& scales = room.scale_lanes;
    keys.clear(), scales.clear();
    int per_block = lanes / LANES, num_blocks = ceil_div(limit, s.block_size), total = num_blocks * per_block;
    for (int b = 0; b < num_blocks; b++)
      for (int l = 0; l < per_block; l++) {
        int64_t at = (table[b] * s.num_kv_heads + kv_head) * lanes + l * LANES;
        keys.push_back(layer.keys.data + at * s.head_dim);
        scales.push_back(layer.key_scales.data + at);
      }
    auto place = [&](int i) { return scores + i / per_block * s.block_size + i % per_block * LANES; };
    int i = 0;
    for (; i + VECTORS <= total; i += VECTORS) {
      float* to[VECTORS];
      for (int v = 0; v < VECTORS; v++) to[v] = place(i + v);
      score_lanes<R, VECTORS>(query, &keys[i], &scales[i], to, stride);
    }
    for (; i < total; i++) {
      float* to[] = {place(i)};
      score_lanes<R, 1>(query, &keys[i], &scales[i], to, stride);
    }
  }
  // Scores to weights exp(score - max) of the first `limit` of `padded` positions, zero after; returns 1 / their sum.
  static float soften(float* scores, int limit, int padded) {
    Floats top = splat(-INFINITY), sum = zeros();
    for (int i = 0; i < limit; i += LANES) {
      Mask m = first_lanes(limit - i);
      top = keep(m, larger(top, Number<float>::widen(scores + i, m)), top);
    }
    Floats highest = splat(largest_of(top));
    for (int i = 0; i < padded; i += LANES) {
      Mask m = first_lanes(limit - i);
      Floats e = keep(m, exponential(Number<float>::widen(scores + i, m) - highest), zeros());
      sum = sum + e;
      store(scores + i, e);
    }
    return 1.f / sum_of(sum);
  }

  // The same for a token of a tree. Its path is brought together before and spread after, so that sums run as they do
  // where the path is all there is.
  static float soften_path(float* scores, const int64_t* path, int length, int start, int padded) {
    for (int d = 0; d < length; d++) scores[start + d] = scores[path[d]];
    float factor = soften(scores, start + length, padded);
    for (int d = length - 1; d >= 0; d--) {
      float weight = scores[start + d];
      scores[start + d] = 0.f;
      scores[path[d]] = weight;
    }
    return factor;
  }

  // Weights times the scales of the values they will meet.
  void scale_weights(float* weights, Layer& layer, const int64_t* table, int kv_head, int limit) const {
    for (int first = 0; first < limit; first += s.block_size) {
      const float* scales = layer.value_scales.data + (table[first / s.block_size] * s.num_kv_heads + kv_head) * lanes;
      int count = std::min(s.block_size, limit - first);
      for (int i = 0; i < count; i += LANES) {
        Mask m = first_lanes(count - i);
        float* to = weights + first + i;
        Number<float>::narrow(to, Number<float>::widen(to, m) * Number<float>::widen(scales + i, m), m);
      }
    }
  }

  template <int R>
  void mix(const float* weights, size_t stride, const float factors[], Layer& layer, const int64_t* table, int kv_head, int limit, T* const out[]) {
    for (int d = 0; d < s.head_dim; d += PANEL) {
      int vectors = std::min(VECTORS, ceil_div(s.head_dim - d, LANES));
      Floats sum[R][VECTORS];
      for (auto& row : sum)
        for (auto& v : row) v = zeros();
      for (int first = 0; first < limit; first += s.block_size) {
        const Code* value = layer.values.data + (table[first / s.block_size] * s.num_kv_heads + kv_head) * s.block_size * padded_dim + d;
        for (int i = first; i < std::min(limit, first + s.block_size); i++, value += padded_dim)
          for (int v = 0; v < vectors; v++) {
            Floats x = Stored::widen(value + v * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sum[r][v] = fused(splat(weights[r * stride + i]), x, sum[r][v]);
          }
      }
      for (int r = 0; r < R; r++)
        for (int v = 0; v < vectors; v++)
          N::narrow(out[r] + d + v * LANES, sum[r][v] * splat(factors[r]), first_lanes(s.head_dim - d - v * LANES));
    }
  }

  // Up to 4 rows (query position major, then the heads of the KV head's group) of one task.
  template <int R>
  void attend_rows(const Batch& batch, Layer& layer, const Task& task, int first_token, Room& room) {
    const int64_t* table = batch.tables + static_cast<int64_t>(task.sequence) * batch.table_width;
    const T* query[R];
    T* out[R];
    int limits[R], limit = 0;
    for (int r = 0; r < R; r++) {
      int position = (task.row + r) / group, h = task.kv_head * group + (task.row + r) % group;
      size_t at = static_cast<size_t>(first_token + position) * q_size + h * s.head_dim;
      query[r] = queries.data + at, out[r] = attended.data + at;
      limits[r] = static_cast<int>(batch.starts[task.sequence]) + position + 1;
      limit = std::max(limit, limits[r]);
    }
    size_t stride = static_cast<size_t>(ceil_div(limit, s.block_size)) * s.block_size + lanes;
    float* scores = room.scores.reserve(R * stride);
    score<R>(query, layer, table, task.kv_head, limit, scores, stride, room);
    float factors[R];
    for (int r = 0; r < R; r++) {
      int token = first_token + (task.row + r) / group, length = batch.paths ? static_cast<int>(batch.path_lengths[token]) : 0;
      float factor = length ? soften_path(scores + r * stride, batch.paths + token * batch.path_width, length,
                                          static_cast<int>(batch.path_starts[token]), limit)
                            : soften(scores + r * stride, limits[r], limit);
      factors[r] = factor * Stored::FACTOR;
      if (Stored::SCALED) scale_weights(scores + r * stride, layer, table, task.kv_head, limit);
    }
    mix<R>(scores, stride, factors, layer, table, task.kv_head, limit, out);
  }

  void attend(const Batch& batch, const std::vector<int>& firsts, int number, Room& room) {
    Layer& layer = layers[number];
    for (int t = next_task[number]++; t < static_cast<int>(tasks.size()); t = next_task[number]++) {
      const Task& task = tasks[t];
      int rows = static_cast<int>(batch.lengths[task.sequence]) * group - task.row;
      int first = firsts[task.sequence];
      switch (std::min(QUERY_ROWS, rows)) {
        case 1: attend_rows<1>(batch, layer, task, first, room); break;
        case 2: attend_rows<2>(batch, layer, task, first, room); break;
        case 3: attend_rows<3>(batch, layer, task, first, room); break;
        default: attend_rows<4>(batch, layer, task, first, room);
      }
    }
  }

  void plan(const Batch& batch, std::vector<int>& firsts) {
    tasks.clear();
    token_adapters.clear();
    for (int q = 0; batch.adapters && q < batch.num_sequences; q++)
      token_adapters.insert(token_adapters.end(), batch.lengths[q], static_cast<int>(batch.adapters[q]));
    int first = 0;
    for (int q = 0; q < batch.num_sequences; q++) {
      firsts[q] = first;
      first += static_cast<int>(batch.lengths[q]);
      for (int h = 0; h < s.num_kv_heads; h++)
        for (int row = 0; row < static_cast<int>(batch.lengths[q]) * group; row += QUERY_ROWS) tasks.push_back({q, h, row});
    }
    for (int l = 0; l < s.num_layers; l++) next_task[l] = 0;
    size_t n = batch.num_tokens, widest = std::max(q_size + 2 * kv_size, 2 * s.intermediate);
    residual.reserve(n * s.hidden), wide.reserve(n * widest);
    narrow.reserve(n * std::max({s.hidden, s.intermediate}) + LANES);
    queries.reserve(n * q_size + LANES), attended.reserve(n * q_size + LANES);
    deepest = ceil_div(std::max({s.hidden, s.intermediate, q_size}), LANES) * LANES;
    codes.reserve(n * deepest), rounded.reserve(n * deepest), row_scales.reserve(n);
  }

  // Codes of one row, 128 added, of its scale times -127..127.
  void quantize_row(const T* x, int size, size_t row) {
    Floats scale = splat(row_scales.data[row] = scale_of(x, size, Int8::LARGEST));
    for (int i = 0; i < size; i += LANES) {
      Ints code = to_ints(N::widen(x + i, first_lanes(size - i)) / scale);
      store_bytes(codes.data + row * deepest + i, plus(code, splat(128)), ALL);
    }
  }

  // One row as the fp8 numbers that it becomes, in T.
  void round_row(const T* x, int size, size_t row) {
    Floats scale = splat(row_scales.data[row] = scale_of(x, size, Fp8::LARGEST));
    uint8_t code[LANES];
    for (int i = 0; i < size; i += LANES) {
      Fp8::narrow(code, N::widen(x + i, first_lanes(size - i)) / scale);
      N::narrow(rounded.data + row * deepest + i, Fp8::widen(code) * splat(Fp8::FACTOR));
    }
  }

  void forward(const Batch& batch, void* hidden) override {
    std::vector<int> firsts(batch.num_sequences);
    plan(batch, firsts);
    if (s.num_threads == 1) return work(batch, firsts, static_cast<T*>(hidden), {0, 1});
#pragma omp parallel num_threads(s.num_threads)
    work(batch, firsts, static_cast<T*>(hidden), {omp_get_thread_num(), omp_get_num_threads()});
  }

  static void meet(Worker worker) {
    if (worker.count > 1) {
#pragma omp barrier
    }
  }

  void work(const Batch& batch, const std::vector<int>& firsts, T* hidden, Worker worker) {
    const int n = batch.num_tokens, qkv_size = q_size + 2 * kv_size;
    Room& room = rooms[worker.index];
    float *x = residual.data, *y = wide.data;
    T* z = narrow.data;
    auto mine = [&](auto&& act) {  // tokens in contiguous shares, so that a token's data stays in one core's cache
      for (int i = n * worker.index / worker.count; i < n * (worker.index + 1) / worker.count; i++) act(static_cast<size_t>(i));
      meet(worker);
    };
    auto times = [&](const Linear<T>& linear, const T* a, int lda, float* c, int ldc, bool add) {
      if (linear.kind == INT8_INT8) {
        mine([&](size_t i) { quantize_row(a + i * lda, linear.k, i); });
        product(linear, Rows<uint8_t>{codes.data, deepest, n, row_scales.data}, c, ldc, add, worker, room.weights);
      } else if (linear.kind == FP8_FP8) {
        mine([&](size_t i) { round_row(a + i * lda, linear.k, i); });
        product(linear, Rows<T>{rounded.data, deepest, n, row_scales.data}, c, ldc, add, worker, room.weights);
      } else {
        product(linear, Rows<T>{a, lda, n, nullptr}, c, ldc, add, worker, room.weights);
      }
      meet(worker);
      if (token_adapters.empty() || linear.adapters.empty()) return;
      mine([&](size_t i) {
        int number = token_adapters[i];
        if (number < 0 || number >= static_cast<int>(linear.adapters.size())) return;
        for (const LowRank& part : linear.adapters[number]) add_low_rank(part, a + i * lda, linear.k, c + i * ldc);
      });
    };
    auto norm = [&](T* to, const float* from, const std::vector<float>& gains) {  // without gains: rounded alone
      if (!gains.empty()) return rms_norm(to, from, gains.data(), s.hidden, s.eps);
      for (int j = 0; j < s.hidden; j += LANES) {
        Mask m = first_lanes(s.hidden - j);
        N::narrow(to + j, Number<float>::widen(from + j, m), m);
      }
    };
    mine([&](size_t i) {
      const T* from = batch.inputs ? static_cast<const T*>(batch.inputs) + i * s.hidden : embedding + batch.ids[i] * s.hidden;
      for (int j = 0; j < s.hidden; j += LANES) {
        Mask m = first_lanes(s.hidden - j);
        Number<float>::narrow(x + i * s.hidden + j, N::widen(from + j, m), m);
      }
    });
    for (int l = 0; l < s.num_layers; l++) {
      Layer& layer = layers[l];
      mine([&](size_t i) { norm(z + i * s.hidden, x + i * s.hidden, layer.input_norm); });
      times(layer.qkv, z, s.hidden, y, qkv_size, false);
      mine([&](size_t i) { place_token(layer, y + i * qkv_size, batch.positions[i], batch.slots[i], queries.data + i * q_size, room); });
      attend(batch, firsts, l, room);
      meet(worker);
      times(layer.o, attended.data, q_size, x, s.hidden, true);
      mine([&](size_t i) { rms_norm(z + i * s.hidden, x + i * s.hidden, layer.post_norm.data(), s.hidden, s.eps); });
      times(layer.gate_up, z, s.hidden, y, 2 * s.intermediate, false);
      mine([&](size_t i) { swiglu(z + i * s.intermediate, y + i * 2 * s.intermediate, y + (2 * i + 1) * s.intermediate, s.intermediate); });
      times(layer.down, z, s.intermediate, x, s.hidden, true);
    }
    mine([&](size_t i) { norm(hidden + i * s.hidden, x + i * s.hidden, final_norm); });
  }

  // Of one sequence's slots no target comes after its source, and both ascend.
  void move(const int64_t* sources, const int64_t* targets, int count) override {
    for (Layer& layer : layers)
      for (int i = 0; i < count; i++)
        for (int h = 0; h < s.num_kv_heads; h++) {
          const Code *key = key_place(layer, sources[i], h), *value = value_place(layer, sources[i], h);
          Code* to = key_place(layer, targets[i], h);
          for (int d = 0; d < s.head_dim; d += N::STEP) std::copy(key + d * LANES, key + d * LANES + N::STEP, to + d * LANES);
          std::copy(value, value + padded_dim, value_place(layer, targets[i], h));
          if (!Stored::SCALED) continue;
          size_t from = scale_place(sources[i], h), at = scale_place(targets[i], h);
          layer.key_scales.data[at] = layer.key_scales.data[from];
          layer.value_scales.data[at] = layer.value_scales.data[from];
        }
  }

  void logits(const void* hidden, int rows, float* out) override {
    auto work = [&](Worker worker) {
      Rows<T> from{static_cast<const T*>(hidden), s.hidden, rows, nullptr};
      product(head, from, out, s.vocab, false, worker, rooms[worker.index].weights);
    };
    if (s.num_threads == 1) return work({0, 1});
#pragma omp parallel num_threads(s.num_threads)
    work({omp_get_thread_num(), omp_get_num_threads()});
  }
};

template <class T>
Decoder* new_decoder(const Shape& shape) {
  switch (shape.kv_format) {
    case KV_INT8: return new PagedDecoder<T, Int8>(shape);
    case KV_FP8: return new PagedDecoder<T, Fp8>(shape);
    default: return new PagedDecoder<T, AsComputed<T>>(shape);
  }
}

// ---- Medusa heads -----------------------------------------------------------------------------------------------

struct HeadsShape {
  int num_heads, num_layers, hidden, vocab, num_threads;
};

struct Heads {
  virtual ~Heads() = default;
  virtual void set(int head, int layer, const void* weight) = 0;
  virtual void best(int num_heads, int rows, const void* hidden, int num_ranks, int64_t* ids, float* probabilities) = 0;
};

// The `count` largest of x[size], the first ones first among equals, and their shares of the sum of exp(x).
void best_of(const float* x, int size, int count, int64_t* ids, float* shares) {
  std::fill(shares, shares + count, -INFINITY), std::fill(ids, ids + count, 0);
  for (int i = 0; i < size; i += LANES) {
    Mask m = first_lanes(size - i);
    unsigned above = lanes_above(Number<float>::widen(x + i, m), shares[count - 1], m);
    for (; above; above &= above - 1) {
      int at = i + __builtin_ctz(above), place = count - 1;
      if (!(x[at] > shares[place])) continue;
      for (; place > 0 && x[at] > shares[place - 1]; place--) shares[place] = shares[place - 1], ids[place] = ids[place - 1];
      shares[place] = x[at], ids[place] = at;
    }
  }
  Floats sum = zeros(), top = splat(shares[0]);
  for (int i = 0; i < size; i += LANES) {
    Mask m = first_lanes(size - i);
    sum = keep(m, sum + exponential(Number<float>::widen(x + i, m) - top), sum);
  }
  float total = sum_of(sum), largest = shares[0];
  for (int rank = 0; rank < count; rank++) shares[rank] = std::exp(shares[rank] - largest) / total;
}

template <class T>
struct MedusaHeads : Heads {
  using N = Number<T>;
  HeadsShape s;
  std::vector<Linear<T>> matrices;  // [head][layer], the output last
  std::vector<Buffer<T>> rooms;
  Buffer<float> residual, wide, scores;
  Buffer<T> narrow;

  explicit MedusaHeads(const HeadsShape& shape) : s(shape), matrices(shape.num_heads * (shape.num_layers + 1)), rooms(shape.num_threads) {}

  Linear<T>& matrix(int head, int layer) { return matrices[head * (s.num_layers + 1) + layer]; }

  void set(int head, int layer, const void* weight) override {
    matrix(head, layer).pack(DENSE, layer == s.num_layers ? s.vocab : s.hidden, s.hidden, weight, nullptr, nullptr, 0, nullptr);
  }

  // Every head: x + silu(x W^T) a layer, then the output layer, of which the best; all out [num_heads, rows, num_ranks].
  void best(int num_heads, int rows, const void* hidden, int num_ranks, int64_t* ids, float* probabilities) override {
    float* out = scores.reserve(static_cast<size_t>(num_heads) * rows * s.vocab);
    size_t size = static_cast<size_t>(rows) * s.hidden;
    residual.reserve(num_heads * size + LANES), wide.reserve(num_heads * size + LANES), narrow.reserve(num_heads * size + LANES);
    auto work = [&](Worker worker) {
      for (int layer = 0; layer <= s.num_layers; layer++) {
        for (int head = worker.index; head < num_heads; head += worker.count) step(layer, head * size, size, static_cast<const T*>(hidden));
        meet(worker);
        for (int head = 0; head < num_heads; head++) {
          Rows<T> from{narrow.data + head * size, s.hidden, rows, nullptr};
          float* to = layer == s.num_layers ? out + static_cast<size_t>(head) * rows * s.vocab : wide.data + head * size;
          product(matrix(head, layer), from, to, layer == s.num_layers ? s.vocab : s.hidden, false, worker, rooms[worker.index]);
        }
        meet(worker);
      }
      for (int i = worker.index; i < num_heads * rows; i += worker.count)
        best_of(out + static_cast<size_t>(i) * s.vocab, s.vocab, num_ranks, ids + i * num_ranks, probabilities + i * num_ranks);
    };
    if (s.num_threads == 1) return work({0, 1});
#pragma omp parallel num_threads(s.num_threads)
    work({omp_get_thread_num(), omp_get_num_threads()});
  }

  // A head's input of a layer, from the layer before or from the hidden states.
  void step(int layer, size_t first, size_t size, const T* hidden) {
    const Floats one = splat(1.f);
    for (size_t i = 0; i < size; i += LANES) {
      Mask m = first_lanes(static_cast<int>(std::min<size_t>(size - i, LANES)));
      Floats x = layer ? Number<float>::widen(residual.data + first + i, m) : N::widen(hidden + i, m);
      if (layer) {
        Floats y = Number<float>::widen(wide.data + first + i, m);
        Floats e = exponential(smaller(zeros() - y, splat(88.f)));
        x = x + y / (one + e);
      }
      Number<float>::narrow(residual.data + first + i, x, m);
      N::narrow(narrow.data + first + i, x, m);
    }
  }

  static void meet(Worker worker) {
    if (worker.count > 1) {
#pragma omp barrier
    }
  }
};

}  // namespace

// ---- what Python calls ------------------------------------------------------------------------------------------

extern "C" {

void* fused_new(const Shape* shape, int is_bf16) {
  if (is_bf16) return new_decoder<bf16>(*shape);
  return new_decoder<float>(*shape);
}

void fused_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

void fused_set_linear(void* decoder, int layer, int which, int kind, int n, int k, const void* weight, const float* scale, const float* zero, int group, const float* bias) {
  static_cast<Decoder*>(decoder)->set_linear(layer, which, static_cast<Kind>(kind), n, k, weight, scale, zero, group, bias);
}

void fused_add_adapter(void* decoder, int layer, int which, int number, int rank, int first, int count, const float* a, const float* b) {
  static_cast<Decoder*>(decoder)->add_adapter(layer, which, number, rank, first, count, a, b);
}

void fused_set_norms(void* decoder, int layer, const float* input, const float* post, const float* qk) {
  static_cast<Decoder*>(decoder)->set_norms(layer, input, post, qk);
}

void fused_set_ends(void* decoder, const void* embedding, const float* norm, const float* cosines, const float* sines) {
  static_cast<Decoder*>(decoder)->set_ends(embedding, norm, cosines, sines);
}

void fused_forward(void* decoder, const Batch* batch, void* hidden) { static_cast<Decoder*>(decoder)->forward(*batch, hidden); }

void fused_logits(void* decoder, const void* hidden, int rows, float* out) { static_cast<Decoder*>(decoder)->logits(hidden, rows, out); }

void fused_move(void* decoder, const int64_t* sources, const int64_t* targets, int count) {
  static_cast<Decoder*>(decoder)->move(sources, targets, count);
}

void* fused_new_heads(const HeadsShape* shape, int is_bf16) {
  if (is_bf16) return new MedusaHeads<bf16>(*shape);
  return new MedusaHeads<float>(*shape);
}

void fused_free_heads(void* heads) { delete static_cast<Heads*>(heads); }

void fused_set_head(void* heads, int head, int layer, const void* weight) { static_cast<Heads*>(heads)->set(head, layer, weight); }

void fused_best(void* heads, int num_heads, int rows, const void* hidden, int num_ranks, int64_t* ids, float* probabilities) {
  static_cast<Heads*>(heads)->best(num_heads, rows, hidden, num_ranks, ids, probabilities);
}
}
