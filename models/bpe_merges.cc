#include "models/bpe_merges.h"

#include <algorithm>
#include <functional>

namespace kvsweep {

namespace {

constexpr int32_t kNone = -1;

uint64_t packed(int32_t high, int32_t low) {
  return static_cast<uint64_t>(static_cast<uint32_t>(high)) << 32 | static_cast<uint32_t>(low);
}

}  // namespace

void BpeMerges::add(int32_t left, int32_t right, int32_t merged, int32_t rank) {
  pairs_.insert_or_assign(packed(left, right), Merge{rank, merged});
}

// The merging of one piece: a doubly linked list over the places of its symbols, and a heap of the pairs that may
// merge.
class BpeMerges::Run {
 public:
  Run(const BpeMerges& merges, const std::vector<int32_t>& symbols) : merges_(merges) {
    const auto count = static_cast<int32_t>(symbols.size());
    nodes_.reserve(symbols.size());
    for (int32_t place = 0; place < count; ++place)
      nodes_.push_back({symbols[place], place - 1, place + 1 < count ? place + 1 : kNone});
    for (int32_t place = 0; place < count; ++place) offer(place);
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void merge_all() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const Candidate best = heap_.back();
      heap_.pop_back();
      merge(best);
    }
  }

  void write(std::vector<int32_t>& symbols) const {
    symbols.clear();
    for (int32_t place = 0; place != kNone; place = nodes_[place].right) symbols.push_back(nodes_[place].id);
  }

 private:
  struct Node {
    int32_t id;  // kNone once it has merged into its left neighbour
    int32_t left, right;
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | place
    int32_t left, right, merged;
    bool operator>(const Candidate& other) const { return order > other.order; }
  };

  // Appends the pair that begins at `place` to the heap's end, when it may merge.
  bool offer(int32_t place) {
    if (place == kNone || nodes_[place].right == kNone) return false;
    const int32_t left = nodes_[place].id, right = nodes_[nodes_[place].right].id;
    const auto found = merges_.pairs_.find(packed(left, right));
    if (found == merges_.pairs_.end()) return false;
    heap_.push_back({packed(found->second.rank, place), left, right, found->second.merged});
    return true;
  }

  void push(int32_t place) {
    if (offer(place)) std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void merge(const Candidate& best) {
    const auto place = static_cast<int32_t>(best.order & 0xFFFFFFFF);
    Node& node = nodes_[place];
    // Either side may have merged with another neighbour since the candidate was made.
    if (node.id != best.left || node.right == kNone || nodes_[node.right].id != best.right) return;
    Node& eaten = nodes_[node.right];
    eaten.id = kNone;
    node.id = best.merged;
    node.right = eaten.right;
    if (node.right != kNone) nodes_[node.right].left = place;
    push(node.left);
    push(place);
  }

  const BpeMerges& merges_;
  std::vector<Node> nodes_;
  std::vector<Candidate> heap_;
};

void BpeMerges::apply(std::vector<int32_t>& symbols) const {
  if (symbols.size() < 2) return;
  Run run(*this, symbols);
  run.merge_all();
  run.write(symbols);
}

}  // namespace kvsweep
