// Contract: bytes are those of memory in use, each counted once.
#include "harness/core/byte_ledger.h"

#include <ATen/ATen.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

namespace kvsweep {
namespace {

TEST_CASE("live is what a view shows, reserved the storage behind it") {
  const at::Tensor buffer = at::empty({2, 100, 8}, at::kHalf);
  ByteLedger ledger;
  ledger.add(ByteRole::kScales, buffer.narrow(1, 0, 30));
  ledger.add(ByteRole::kCodes, at::empty({5}, at::kByte));
  CHECK(ledger.live(ByteRole::kScales) == 2 * 30 * 8 * 2);
  CHECK(ledger.live(ByteRole::kCodes) == 5);
  CHECK(ledger.live(ByteRole::kWindow) == 0);
  CHECK(ledger.live_bytes() == 2 * 30 * 8 * 2 + 5);
  CHECK(ledger.reserved_bytes() == 2 * 100 * 8 * 2 + 5);
}

TEST_CASE("an alias is billed once, whatever its role") {
  const at::Tensor x = at::empty({4, 10}, at::kFloat);
  ByteLedger ledger;
  ledger.add(ByteRole::kWindow, x);
  ledger.add(ByteRole::kWindow, x);
  ledger.add(ByteRole::kCodes, x.view({40}));
  CHECK(ledger.live_bytes() == 4 * 10 * 4);
  CHECK(ledger.reserved_bytes() == 4 * 10 * 4);
}

TEST_CASE("a longer view from the same start is billed for what it adds") {
  const at::Tensor x = at::empty({10, 3}, at::kFloat);
  ByteLedger ledger;
  ledger.add(ByteRole::kWindow, x.narrow(0, 0, 4));
  ledger.add(ByteRole::kWindow, x);
  ledger.add(ByteRole::kWindow, x.narrow(0, 0, 2));
  CHECK(ledger.live_bytes() == 10 * 3 * 4);
}

TEST_CASE("views side by side in one storage add up and reserve it once") {
  const at::Tensor x = at::empty({2, 10}, at::kFloat);
  ByteLedger ledger;
  ledger.add(ByteRole::kWindow, x.narrow(1, 0, 4));
  ledger.add(ByteRole::kWindow, x.narrow(1, 4, 3));
  CHECK(ledger.live_bytes() == 2 * 7 * 4);
  CHECK(ledger.reserved_bytes() == 2 * 10 * 4);
}

TEST_CASE("a buffer without tokens is reserved, not live") {
  ByteLedger ledger;
  ledger.add(ByteRole::kCodes, at::empty({2, 50, 4}, at::kByte).narrow(1, 0, 0));
  ledger.add(ByteRole::kCodes, at::Tensor());
  CHECK(ledger.live_bytes() == 0);
  CHECK(ledger.reserved_bytes() == 2 * 50 * 4);
}

TEST_CASE("a view that shows elements twice is refused") {
  using Catch::Matchers::ContainsSubstring;
  ByteLedger ledger;
  const at::Tensor x = at::empty({1, 6}, at::kFloat);
  CHECK_THROWS_WITH(ledger.add(ByteRole::kCodes, x.expand({3, 6})), ContainsSubstring("not memory"));
  CHECK_THROWS_WITH(ledger.add(ByteRole::kCodes, x.unfold(1, 4, 1)), ContainsSubstring("not memory"));
  CHECK_NOTHROW(ledger.add(ByteRole::kCodes, x.expand({1, 6}).t()));
  CHECK_NOTHROW(ledger.add(ByteRole::kCodes, at::empty({4, 9, 3}).permute({2, 0, 1}).narrow(2, 1, 5)));
}

}  // namespace
}  // namespace kvsweep
