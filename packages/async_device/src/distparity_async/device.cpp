// What torch only takes from C++: the device guard, the allocators, the hooks, a collective's work.
// Every decision is Python's (`scheduler.py`, `memory.py`), asked under the GIL. Only the current
// device and the current streams are kept here: they belong to a thread, and are asked all the time.

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/EmptyTensor.h>
#include <ATen/core/ivalue_inl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/record_function.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>

namespace py = pybind11;

namespace {

constexpr auto KIND = c10::DeviceType::PrivateUse1;
constexpr int MOST_DEVICES = 16;

py::object* decisions = nullptr;  // never freed: torch may ask while Python ends
int device_total = 1;
thread_local c10::DeviceIndex current_device = 0;
thread_local std::array<c10::StreamId, MOST_DEVICES> current_streams{};

// Ask Python. An exception of Python's becomes one of torch's, while the GIL is still held.
template <typename Result, typename... Arguments>
Result ask(const char* name, Arguments... arguments) {
  py::gil_scoped_acquire gil;
  try {
    py::object answer = decisions->attr(name)(arguments...);
    if constexpr (!std::is_void_v<Result>) {
      return answer.cast<Result>();
    }
  } catch (py::error_already_set& error) {
    std::string text = error.what();
    TORCH_CHECK(false, text);
  }
}

// -- memory ----------------------------------------------------------------------------------------

// Frees come at any time, from any thread, in the middle of anything: Python takes them later.
std::mutex freed_lock;
std::vector<std::intptr_t> freed;
std::vector<std::int64_t> gone_events;

void note_freed(void* pointer) {
  const std::lock_guard<std::mutex> lock(freed_lock);
  freed.push_back(reinterpret_cast<std::intptr_t>(pointer));
}

std::vector<std::intptr_t> take_freed() {
  const std::lock_guard<std::mutex> lock(freed_lock);
  std::vector<std::intptr_t> taken;
  taken.swap(freed);
  return taken;
}

std::vector<std::int64_t> take_gone_events() {
  const std::lock_guard<std::mutex> lock(freed_lock);
  std::vector<std::int64_t> taken;
  taken.swap(gone_events);
  return taken;
}

using Stat = c10::CachingAllocator::Stat;

struct DeviceAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t size) override {
    const c10::Device device(KIND, current_device);
    if (size == 0) {
      return {nullptr, nullptr, &note_nothing, device};
    }
    auto stream = current_streams.at(current_device);
    auto* pointer = reinterpret_cast<void*>(
        ask<std::intptr_t>("allocate", size, current_device, stream));
    return {pointer, pointer, &note_freed, device};
  }
  static void note_nothing(void*) {}
  c10::DeleterFnPtr raw_deleter() const override { return &note_freed; }
  void copy_data(void* target, const void* source, size_t size) const override {
    default_copy_data(target, source, size);
  }
  bool initialized() override { return decisions != nullptr; }
  void emptyCache(c10::MempoolId_t) override { ask<void>("empty_cache"); }
  void recordStream(const c10::DataPtr& data, c10::Stream stream) override {
    ask<void>("record_stream", reinterpret_cast<std::intptr_t>(data.get()), stream.device_index(),
              stream.id());
  }
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    // No block is split or shared, so what was asked for, what is in use and what is active is one.
    auto [bytes, blocks] = ask<std::pair<Counts, Counts>>("statistics", device);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocation[0] = stats.active[0] = as_stat(blocks);
    stats.allocated_bytes[0] = stats.active_bytes[0] = stats.requested_bytes[0] = as_stat(bytes);
    return stats;
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override {
    ask<void>("forget_accumulated", device);
  }
  void resetPeakStats(c10::DeviceIndex device) override { ask<void>("forget_peak", device); }

 private:
  using Counts = std::array<std::int64_t, 4>;
  static Stat as_stat(const Counts& counts) {
    Stat stat;
    stat.current = counts[0];
    stat.peak = counts[1];
    stat.allocated = counts[2];
    stat.freed = counts[3];
    return stat;
  }
};

struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t size) override {
    auto* pointer =
        size == 0 ? nullptr : reinterpret_cast<void*>(ask<std::intptr_t>("allocate_pinned", size));
    return {pointer, pointer, size == 0 ? &DeviceAllocator::note_nothing : &note_freed, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &note_freed; }
  void copy_data(void* target, const void* source, size_t size) const override {
    default_copy_data(target, source, size);
  }
};

DeviceAllocator device_allocator;
PinnedAllocator pinned_allocator;

// Which host memory is pinned: `is_pinned` is asked for any address inside.
std::mutex pinned_lock;
std::map<std::uintptr_t, size_t> pinned;

bool is_inside(const std::map<std::uintptr_t, size_t>& spans, std::uintptr_t low, size_t size) {
  auto next = spans.upper_bound(low + (size ? size - 1 : 0));
  if (next == spans.begin()) {
    return false;
  }
  --next;
  return next->first + next->second > low;
}

// -- the guard -------------------------------------------------------------------------------------

struct Event {
  std::int64_t id;
};

std::atomic<std::int64_t> events{0};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return KIND; }
  c10::Device exchangeDevice(c10::Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {KIND, current_device}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < device_total, "asim: invalid device ordinal ", device.index(),
                " of ", device_total);
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.index() >= 0) {
      current_device = device.index();
    }
  }
  c10::DeviceIndex deviceCount() const noexcept override {
    return static_cast<c10::DeviceIndex>(device_total);
  }
  c10::Stream getStream(c10::Device device) const override {
    auto index = device.index() < 0 ? current_device : device.index();
    return c10::Stream(c10::Stream::UNSAFE, {KIND, index}, current_streams.at(index));
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    auto index = device.index() < 0 ? current_device : device.index();
    return c10::Stream(c10::Stream::UNSAFE, {KIND, index}, 0);
  }
  c10::Stream getNewStream(c10::Device device, int priority = 0) const override {
    auto index = device.index() < 0 ? current_device : device.index();
    auto id = ask<std::int64_t>("new_stream", index, priority);
    return c10::Stream(c10::Stream::UNSAFE, {KIND, index}, id);
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool high = false) const override {
    return getNewStream(device, high ? -1 : 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    auto& current = current_streams.at(stream.device_index());
    c10::Stream before(c10::Stream::UNSAFE, stream.device(), current);
    current = stream.id();
    return before;
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    if (event != nullptr) {
      const std::lock_guard<std::mutex> lock(freed_lock);
      gone_events.push_back(static_cast<Event*>(event)->id);
      delete static_cast<Event*>(event);
    }
  }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex,
              c10::EventFlag) const override {
    if (*event == nullptr) {
      *event = new Event{++events};
    }
    ask<void>("record", static_cast<Event*>(*event)->id, stream.device_index(), stream.id());
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event != nullptr) {
      ask<void>("block", static_cast<Event*>(event)->id, stream.device_index(), stream.id());
    }
  }
  bool queryEvent(void* event) const override {
    return event == nullptr || ask<bool>("query_event", static_cast<Event*>(event)->id);
  }
  void synchronizeEvent(void* event) const override {
    if (event != nullptr) {
      ask<void>("synchronize_event", static_cast<Event*>(event)->id);
    }
  }
  double elapsedTime(void* first, void* second, const c10::DeviceIndex) const override {
    TORCH_CHECK(first && second, "asim: both events must be recorded before elapsed_time");
    return ask<double>("elapsed", static_cast<Event*>(first)->id, static_cast<Event*>(second)->id);
  }
  bool queryStream(const c10::Stream& stream) const override {
    return ask<bool>("query_stream", stream.device_index(), stream.id());
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    ask<void>("synchronize_stream", stream.device_index(), stream.id());
  }
  void synchronizeDevice(const c10::DeviceIndex device) const override {
    ask<void>("synchronize_device", device);
  }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    device_allocator.recordStream(data, stream);
  }
};

// -- the hooks -------------------------------------------------------------------------------------

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override {
    return static_cast<c10::DeviceIndex>(device_total);
  }
  void setCurrentDevice(c10::DeviceIndex device) const override {
    Guard().setDevice({KIND, device});
  }
  c10::DeviceIndex getCurrentDevice() const override { return current_device; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex device) const override {
    return Guard().exchangeDevice({KIND, device}).index();
  }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex device) const override {
    return exchangeDevice(device);
  }
  bool isPinnedPtr(const void* data) const override {
    const std::lock_guard<std::mutex> lock(pinned_lock);
    return is_inside(pinned, reinterpret_cast<std::uintptr_t>(data), 1);
  }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  at::Device getDeviceFromPtr(void*) const override { return {KIND, current_device}; }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::globalContext().defaultGenerator(c10::kCPU).clone();
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t size) const override {
    c10::DeviceGuard guard(storage.device());
    auto data = device_allocator.allocate(size);
    auto kept = std::min(size, storage.nbytes());
    if (kept > 0) {
      ask<void>("move", reinterpret_cast<std::intptr_t>(data.get()),
                reinterpret_cast<std::intptr_t>(storage.data()), kept);
    }
    storage.set_data_ptr(std::move(data));
    storage.set_nbytes(size);
  }
};

// -- tensors ---------------------------------------------------------------------------------------

const c10::DispatchKeySet ON_DEVICE(c10::DispatchKey::PrivateUse1);

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(c10::Device(KIND, current_device)));
  return at::detail::empty_generic(size, &device_allocator, ON_DEVICE, at::dtype_or_default(dtype),
                                   format);
}

at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device> device, std::optional<bool>) {
  c10::DeviceGuard guard(device.value_or(c10::Device(KIND, current_device)));
  return at::detail::empty_strided_generic(size, stride, &device_allocator, ON_DEVICE,
                                           at::dtype_or_default(dtype));
}

void record_tensor(at::Tensor& tensor, c10::Stream stream) {
  if (tensor.storage().data() != nullptr) {
    Guard().recordDataPtrOnStream(tensor.storage().data_ptr(), stream);
  }
}

// A tensor of the CPU over the same bytes, which it does not own: conjugated or negated by its bits as well.
at::Tensor on_host(const at::Tensor& tensor) {
  const auto& storage = tensor.storage();
  c10::DataPtr data(const_cast<void*>(storage.data()), c10::kCPU);
  c10::Storage seen(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(data), nullptr,
                    false);
  auto made = at::detail::make_tensor<c10::TensorImpl>(
      std::move(seen), c10::DispatchKeySet(c10::DispatchKey::CPU), tensor.dtype());
  auto* inside = made.unsafeGetTensorImpl();
  inside->set_storage_offset(tensor.storage_offset());
  inside->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  if (tensor.is_conj()) {
    inside->_set_conj(true);
  }
  if (tensor.is_neg()) {
    inside->_set_neg(true);
  }
  return made;
}

// The block of memory in which a tensor lies, and the span of bytes that it covers in it.
std::tuple<std::intptr_t, std::int64_t, std::int64_t> place(const at::Tensor& tensor) {
  auto base = reinterpret_cast<std::intptr_t>(tensor.storage().data());
  auto width = static_cast<std::int64_t>(tensor.element_size());
  std::int64_t low = tensor.storage_offset();
  std::int64_t last = low;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (tensor.size(dim) == 0) {
      return {base, 0, 0};
    }
    last += (tensor.size(dim) - 1) * tensor.stride(dim);
  }
  return {base, low * width, (last + 1) * width};
}

// -- what the host does with pinned memory ---------------------------------------------------------

// Spans of pinned memory at which a stream may still be: an operation of the CPU on them is told.
std::mutex watched_lock;
std::map<std::uintptr_t, size_t> watched;
std::atomic<bool> is_watching{false};
at::CallbackHandle watcher = 0;
thread_local bool is_quiet = false;

void tell_if_watched(const at::Tensor& tensor, bool writes, const char* name) {
  if (!tensor.defined() || !tensor.device().is_cpu() || !tensor.has_storage()) {
    return;
  }
  auto [base, low, high] = place(tensor);
  {
    const std::lock_guard<std::mutex> lock(watched_lock);
    if (high == low || !is_inside(watched, base + low, high - low)) {
      return;
    }
  }
  ask<void>("host_access", base + low, base + high, writes, name);
}

std::unique_ptr<at::ObserverContext> on_operation(const at::RecordFunction& function) {
  if (!is_watching || is_quiet) {
    return nullptr;
  }
  auto name = function.operator_name();
  if (!name.has_value()) {
    return nullptr;
  }
  auto handle = c10::Dispatcher::singleton().findSchema(*name);
  // What has no kernel for the CPU is made of others, which come here as well. `copy_` is the exception:
  // it has one kernel for all devices, in which `clone`, `contiguous` and `to` end as well.
  bool is_leaf = handle.has_value() && (handle->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
                                        name->name == "aten::copy_");
  if (!is_leaf) {
    return nullptr;
  }
  const auto& schema = handle->schema();
  for (const auto& result : schema.returns()) {
    if (result.alias_info() != nullptr && !result.alias_info()->isWrite()) {
      return nullptr;  // a view reads no bytes
    }
  }
  is_quiet = true;
  auto inputs = function.inputs();
  for (const auto& input : inputs) {  // a copy to or from the device is the stream's, not the host's
    if (input.isTensor() && input.toTensor().defined() && !input.toTensor().device().is_cpu()) {
      is_quiet = false;
      return nullptr;
    }
  }
  for (size_t at = 0; at < inputs.size() && at < schema.arguments().size(); ++at) {
    const auto* alias = schema.arguments()[at].alias_info();
    bool writes = alias != nullptr && alias->isWrite();
    if (inputs[at].isTensor()) {
      tell_if_watched(inputs[at].toTensor(), writes, schema.name().c_str());
    } else if (inputs[at].isTensorList()) {
      for (const auto& tensor : inputs[at].toTensorVector()) {
        tell_if_watched(tensor, writes, schema.name().c_str());
      }
    }
  }
  is_quiet = false;
  return nullptr;
}

void watch(const std::vector<std::pair<std::uintptr_t, size_t>>& spans) {
  const std::lock_guard<std::mutex> lock(watched_lock);
  watched.clear();
  watched.insert(spans.begin(), spans.end());
  is_watching = !watched.empty();
  if (watcher == 0 && is_watching) {
    watcher = at::addGlobalCallback(at::RecordFunctionCallback(&on_operation)
                                        .needsInputs(true)
                                        .scopes({at::RecordScope::FUNCTION}));
  } else if (watcher != 0) {
    is_watching ? at::reenableCallback(watcher) : at::disableCallback(watcher);
  }
}

// -- a collective's work ---------------------------------------------------------------------------

// What a caller holds of a collective: to wait for it is to have the current stream wait.
struct StreamWork final : c10d::Work {
  StreamWork(py::object answers, std::vector<at::Tensor> results, c10::DeviceIndex device)
      : answers_(new py::object(std::move(answers))), results_(std::move(results)) {
    std::vector<c10::Device> devices;
    if (device >= 0) {
      devices.emplace_back(KIND, device);
    }
    future_ = c10::make_intrusive<at::ivalue::Future>(c10::ListType::create(c10::TensorType::get()),
                                                      devices);
    py::gil_scoped_release release;
    future_->markCompleted(at::IValue(results_));
  }
  ~StreamWork() override {
    py::gil_scoped_acquire gil;
    delete answers_;
  }
  bool isCompleted() override { return answer<bool>("is_completed"); }
  bool isSuccess() const override { return true; }
  std::vector<at::Tensor> result() override { return results_; }
  bool wait(std::chrono::milliseconds) override {
    answer<void>("wait");
    return true;
  }
  void synchronize() override { answer<void>("wait"); }
  void blockCurrentStream() { answer<void>("wait"); }
  c10::intrusive_ptr<at::ivalue::Future> getFuture() override { return future_; }

 private:
  template <typename Result>
  Result answer(const char* name) const {
    py::gil_scoped_acquire gil;
    try {
      py::object found = answers_->attr(name)();
      if constexpr (!std::is_void_v<Result>) {
        return found.cast<Result>();
      }
    } catch (py::error_already_set& error) {
      std::string text = error.what();
      TORCH_CHECK(false, text);
    }
  }
  py::object* answers_;
  std::vector<at::Tensor> results_;
  c10::intrusive_ptr<at::ivalue::Future> future_;
};

// -- to torch and to Python ------------------------------------------------------------------------

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);
REGISTER_ALLOCATOR(KIND, &device_allocator);

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("record_stream", &record_tensor);
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.def("install", [](py::object object, int total) {
    TORCH_CHECK(0 < total && total <= MOST_DEVICES, "asim: at most ", MOST_DEVICES, " devices");
    decisions = new py::object(std::move(object));
    device_total = total;
    at::RegisterPrivateUse1HooksInterface(new Hooks());
  });
  module.def("take_freed", &take_freed);
  module.def("take_gone_events", &take_gone_events);
  module.def("fresh", [](std::vector<std::int64_t> size, std::vector<std::int64_t> stride,
                         at::ScalarType dtype, int device) {
    return empty_strided(size, stride, dtype, {},
                         c10::Device(KIND, static_cast<c10::DeviceIndex>(device)), {});
  });
  module.def("get_memory", [](size_t size) {
    return reinterpret_cast<std::intptr_t>(c10::alloc_cpu(size));
  });
  module.def("give_memory", [](std::intptr_t pointer) {
    c10::free_cpu(reinterpret_cast<void*>(pointer));
  });
  module.def("fill", [](std::intptr_t pointer, int byte, size_t size) {
    std::memset(reinterpret_cast<void*>(pointer), byte, size);
  });
  module.def("move", [](std::intptr_t target, std::intptr_t source, size_t size) {
    std::memcpy(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), size);
  });
  module.def("note_pinned", [](std::uintptr_t pointer, size_t size) {
    const std::lock_guard<std::mutex> lock(pinned_lock);
    pinned[pointer] = size;
  });
  module.def("forget_pinned", [](std::uintptr_t pointer) {
    const std::lock_guard<std::mutex> lock(pinned_lock);
    pinned.erase(pointer);
  });
  module.def("watch", &watch);
  module.def("quiet", [](bool quiet) { return std::exchange(is_quiet, quiet); });
  module.def("on_host", &on_host);
  module.def("place", &place);
  module.def("current_device", [] { return static_cast<int>(current_device); });
  module.def("current_stream", [](int device) { return current_streams.at(device); });
  module.def("set_stream", [](int device, std::int64_t stream) {
    return std::exchange(current_streams.at(device), stream);
  });
  module.def("make_work", [](py::object answers, std::vector<at::Tensor> results, int device) {
    return c10::intrusive_ptr<c10d::Work>(c10::make_intrusive<StreamWork>(
        std::move(answers), std::move(results), static_cast<c10::DeviceIndex>(device)));
  });
}
