#include "harness/report/export/names.h"

#include <algorithm>
#include <map>
#include <set>

#include "harness/core/hash.h"

namespace kvsweep {
namespace {

constexpr size_t kLongest = 120;

std::string value_of(const Fields& facts, const std::string& key) {
  const auto at = std::find_if(facts.begin(), facts.end(), [&](const auto& fact) { return fact.first == key; });
  return at == facts.end() ? "none" : at->second;
}

// Keys whose values differ, in order of first appearance.
std::vector<std::string> differing(const std::vector<const Named*>& things) {
  std::vector<std::string> keys;
  for (const Named* thing : things)
    for (const auto& [key, unused] : thing->facts) {
      const auto same = [&, &name = key](const Named* other) {
        return value_of(other->facts, name) == value_of(things.front()->facts, name);
      };
      if (std::find(keys.begin(), keys.end(), key) == keys.end() && !std::all_of(things.begin(), things.end(), same))
        keys.push_back(key);
    }
  return keys;
}

std::string clean(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool kept = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                      c == '-' || c == '=' || c == '_';
    if (kept || out.empty() || out.back() != '_') out += kept ? c : '_';
  }
  return out;
}

std::string hash_of(const Named& thing) {
  std::string all = thing.base;
  for (const auto& [key, value] : thing.facts) all += "\n" + key + "=" + value;
  return sha256_hex(all).substr(0, 8);
}

}  // namespace

std::vector<std::string> file_names(const std::vector<Named>& things) {
  std::map<std::string, std::vector<const Named*>> alike;
  for (const Named& thing : things) alike[thing.base].push_back(&thing);
  std::vector<std::string> names;
  std::map<std::string, int> times;
  for (const Named& thing : things) {
    std::string name = thing.base;
    for (const std::string& key : differing(alike[thing.base])) name += "_" + key + "=" + value_of(thing.facts, key);
    ++times[names.emplace_back(clean(name))];
  }
  for (size_t i = 0; i < things.size(); ++i)
    if (names[i].size() > kLongest || times[names[i]] > 1)
      names[i] = names[i].substr(0, kLongest - 9) + "_" + hash_of(things[i]);
  return names;
}

}  // namespace kvsweep
