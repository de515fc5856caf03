// Contract: a buffer of rows against concatenation and slicing.
#include "harness/core/token_buffer.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "harness/core/random.h"

namespace kvsweep {
namespace {

// [2, count, 3], every element another number.
at::Tensor numbered(int64_t first, int64_t count) {
  const at::Tensor row = at::arange(first, first + count, at::kFloat).view({1, count, 1});
  return row * 10 + at::arange(3, at::kFloat) + at::arange(2, at::kFloat).view({2, 1, 1}) * 1e5;
}

TEST_CASE("rows that come and go are those of a list") {
  const int64_t hint = GENERATE(0, 1, 7, 64, 1000);
  const int64_t longest = GENERATE(1, 3, 40);
  INFO("hint " << hint << ", up to " << longest << " rows at a time");
  Rng rng(static_cast<uint64_t>(100 * hint + longest));
  TokenBuffer buffer(at::empty({2, 0, 3}), hint);
  int64_t first = 0, end = 0, wrong = 0;
  for (int step = 0; step < 400; ++step) {
    const int64_t more = rng.between(0, longest);
    buffer.append(numbered(end, more));
    end += more;
    const int64_t leave = rng.between(0, std::min(end - first, longest));
    buffer.drop_front(leave);
    first += leave;
    wrong += buffer.size() != end - first || !buffer.rows().equal(numbered(first, end - first));
  }
  CHECK(wrong == 0);
}

TEST_CASE("a move to the front of the buffer keeps rows that lie close to it") {
  const int64_t capacity = GENERATE(6, 7, 8, 9, 10);
  for (int64_t leave = 0; leave <= capacity; ++leave) {
    INFO("capacity " << capacity << ", " << leave << " rows leave");
    TokenBuffer buffer(at::empty({2, 0, 3}), capacity);
    buffer.append(numbered(0, capacity));
    buffer.drop_front(leave);
    buffer.append(numbered(capacity, 1));
    CHECK(buffer.rows().equal(numbered(leave, capacity + 1 - leave)));
  }
}

TEST_CASE("a window of constant length stops growing") {
  TokenBuffer buffer(at::empty({2, 0, 3}), 0);
  buffer.append(numbered(0, 100));
  for (int64_t t = 100; t < 5000; ++t) {
    buffer.append(numbered(t, 1));
    buffer.drop_front(1);
  }
  CHECK(buffer.rows().equal(numbered(4900, 100)));
  CHECK(buffer.rows().storage().nbytes() <= 4 * 100 * 2 * 3 * sizeof(float));
}

TEST_CASE("a hint is reserved once") {
  TokenBuffer buffer(at::empty({2, 0, 3}), 500);
  buffer.append(numbered(0, 1));
  const void* start = buffer.rows().data_ptr();
  for (int64_t t = 1; t < 500; ++t) buffer.append(numbered(t, 1));
  CHECK(buffer.rows().data_ptr() == start);
}

TEST_CASE("a clone shares nothing") {
  TokenBuffer buffer(at::empty({2, 0, 3}), 16);
  buffer.append(numbered(0, 10));
  buffer.drop_front(3);
  TokenBuffer copy = buffer.clone();
  copy.append(numbered(50, 2));
  buffer.append(numbered(10, 1));
  CHECK(buffer.rows().equal(numbered(3, 8)));
  CHECK(copy.rows().equal(at::cat({numbered(3, 7), numbered(50, 2)}, 1)));
  buffer.rows().zero_();
  CHECK(copy.rows().narrow(1, 0, 7).equal(numbered(3, 7)));
}

TEST_CASE("rows of another shape or type are refused") {
  TokenBuffer buffer(at::empty({2, 0, 3}), 4);
  CHECK_THROWS(buffer.append(at::zeros({2, 1, 4})));
  CHECK_THROWS(buffer.append(at::zeros({1, 1, 3})));  // would broadcast
  CHECK_THROWS(buffer.append(at::zeros({2, 1, 3}, at::kHalf)));
  CHECK_THROWS(buffer.append(at::zeros({2, 1})));
  CHECK_THROWS(buffer.drop_front(1));
  CHECK_THROWS(TokenBuffer(at::empty({3}), 4));
  CHECK(buffer.size() == 0);
}

}  // namespace
}  // namespace kvsweep
