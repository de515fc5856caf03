#include "harness/report/tables/tables.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <set>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

std::string short_hash(const std::string& hash) {
  return hash.empty() ? "none" : hash.substr(0, 8);
}

Document document_of(const TableContext& context, const TableRequest& request) {
  switch (request.kind) {
    case TableKind::kMain:
      return main_tables(context);
    case TableKind::kPivot:
      return pivot_tables(context, request.pivot);
    case TableKind::kLoss:
      return loss_matrix(context);
    case TableKind::kRecommend:
      return recommended(context);
    case TableKind::kPareto:
      return pareto_tables(context);
    case TableKind::kKeyValue:
      return key_value_tables(context);
    case TableKind::kGrid:
      return depth_grids(context);
  }
  return {};
}

void require_match(const TableContext& context) {
  const std::vector<Record>& records = context.analysis.results().records();
  const auto shown = [&](const Record& record) { return context.shows(record); };
  if (std::any_of(records.begin(), records.end(), shown)) return;
  throw ConfigError(fmt::format("--only '{}': matches none of {} points; one of them: '{}'", context.only,
                                records.size(), records.front().point.label()));
}

}  // namespace

bool TableContext::shows(const Record& record) const {
  return only.empty() || fnmatch(only.c_str(), record.point.label().c_str(), 0) == 0;
}

bool TableContext::shows(const Group& group) const {
  return only.empty() ||
         std::any_of(group.rows.begin(), group.rows.end(), [&](const Row& row) { return shows(*row.record); });
}

bool TableContext::shows(const PooledRow& row) const {
  return only.empty() || std::any_of(row.rows.begin(), row.rows.end(),
                                     [&](const Row* one) { return one != nullptr && shows(*one->record); });
}

std::string TableContext::bounds_text() const {
  return fmt::format("intervals of {:g} %", 100 * confidence());
}

std::string render_tables(const Analysis& analysis, const TableRequest& request) {
  const Families families(analysis.results().records());
  const TableContext context{analysis, families, request.only};
  require_match(context);
  return render(document_of(context, request), request.render);
}

std::string rules_text(const Record& record) {
  return fmt::format("view {} | seed {} | model {} | weights {} | data {}", record.point.view, record.point.seed,
                     record.point.model, short_hash(record.env.weights_sha256), short_hash(record.env.data_sha256));
}

std::string pool_title(const Pool& pool) {
  if (pool.kind.empty()) return "all tasks but language modeling";
  std::string title = pool.kind;
  std::replace(title.begin(), title.end(), '_', ' ');
  return title;
}

std::string pool_text(const Pool& pool) {
  std::vector<std::string> tasks;
  for (const Group* group : pool.groups)
    tasks.push_back(fmt::format("{} {}", group->first->point.task, group->first->point.tokens));
  return fmt::format("model {} | view {} | n {} | {}", pool.model, pool.view, items_of(pool), join(tasks));
}

std::string commits_of(const std::vector<const Record*>& records) {
  std::set<std::string> commits;
  for (const Record* record : records)
    commits.insert(short_hash(record->env.commit) + (record->env.dirty ? " (dirty)" : ""));
  return join({commits.begin(), commits.end()});
}

std::vector<const Record*> records_of(const Pool& pool) {
  std::vector<const Record*> records;
  for (const Group* group : pool.groups)
    for (const Row& row : group->rows) records.push_back(row.record);
  return records;
}

std::vector<const Pool*> pools_of(const Analysis& analysis) {
  std::vector<const Pool*> out;
  for (const Pool& pool : analysis.pools()) {
    const auto same = [&](const Pool& other) { return &other != &pool && other.groups == pool.groups; };
    const bool repeats = pool.kind.empty() && std::any_of(analysis.pools().begin(), analysis.pools().end(), same);
    if (!repeats) out.push_back(&pool);
  }
  return out;
}

int64_t items_of(const Pool& pool) {
  int64_t items = 0;
  for (const Group* group : pool.groups) items += group->items;
  return items;
}

std::string configuration_name(const TableContext& context, const PooledRow& row) {
  return row.record == nullptr ? row.configuration : context.families.configuration(*row.record);
}

}  // namespace kvsweep
