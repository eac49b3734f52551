// The header alone, as C++17: it compiles, links and gives the macros the types it promises.
#include "stockpot.h"

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <type_traits>

static_assert(std::is_same_v<decltype(SP_OK), sp_status>);
static_assert(std::is_same_v<decltype(SP_DTYPE_BF16), sp_dtype>);
static_assert(std::is_standard_layout_v<sp_view> && std::is_trivially_copyable_v<sp_view>);
static_assert(std::is_standard_layout_v<sp_error> && sizeof(sp_error) == 512);
static_assert(offsetof(sp_view, dtype) == 84 && alignof(sp_view) == 8);

int main() {
  sp_error error = SP_ERROR_INIT;
  sp_job_options options = SP_JOB_OPTIONS_INIT;
  sp_job *job = nullptr;
  const sp_status status = sp_job_create("{}", nullptr, &options, &job, &error);
  if (status != SP_E_RECIPE || job != nullptr || std::strlen(error.message) == 0) return 1;
  std::printf("cpp17: %s\n", error.message);
  return 0;
}
