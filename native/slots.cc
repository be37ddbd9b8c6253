#include "slots.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // linux/mman.h, since 5.14
#endif

namespace loopback {

namespace {
constexpr size_t kHugePage = size_t{2} << 20;
}

size_t round_to_pages(size_t bytes) {
  static const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

Slots::Slots(std::function<bool(size_t)> allow) : allow_(std::move(allow)) {}

Slots::~Slots() {
  for (Slot* slot : cache_) unmap(slot);
}

Slot* Slots::acquire(size_t bytes, bool* mapped) {
  *mapped = false;
  const size_t wanted = std::max<size_t>(round_to_pages(bytes), round_to_pages(1));
  for (auto it = cache_.rbegin(); it != cache_.rend(); ++it) {
    // A much larger slot would hold memory that its frame does not need.
    if ((*it)->capacity < wanted || (*it)->capacity > 2 * wanted) continue;
    Slot* slot = *it;
    cache_.erase(std::next(it).base());
    cached_bytes_ -= slot->capacity;
    in_use_bytes_ += slot->capacity;
    idle_ = std::min(idle_, cache_.size());
    return slot;
  }
  Slot* slot = map(wanted);
  if (slot == nullptr) return nullptr;
  *mapped = true;
  in_use_bytes_ += slot->capacity;
  return slot;
}

void Slots::put_back(Slot* slot) {
  in_use_bytes_ -= slot->capacity;
  cached_bytes_ += slot->capacity;
  cache_.push_back(slot);
}

void Slots::exchange(const Slot* left, const Slot* slot) {
  in_use_bytes_ += slot->capacity - left->capacity;
  resident_ += slot->touched - left->touched;
}

void Slots::add(Slot* slot) {
  resident_ += slot->touched;
  cached_bytes_ += slot->capacity;
  cache_.push_front(slot);
}

void Slots::touch(Slot* slot, size_t bytes) {
  if (bytes <= slot->touched) return;
  resident_ += bytes - slot->touched;
  slot->touched = bytes;
}

std::vector<Slot*> Slots::surplus(size_t keep_bytes) {
  std::vector<Slot*> detached;
  // One stays for the next frame, so that a steady flow maps nothing.
  size_t spare = idle_ > 1 ? idle_ - 1 : 0;
  while (!cache_.empty() && (spare > 0 || cached_bytes_ > keep_bytes ||
                             (frame_bytes_ != 0 && cache_.front()->capacity > 2 * frame_bytes_))) {
    Slot* slot = cache_.front();
    cache_.pop_front();
    cached_bytes_ -= slot->capacity;
    detached.push_back(slot);
    if (spare > 0) --spare;
  }
  idle_ = cache_.size();
  return detached;
}

Slot* Slots::map(size_t bytes) const {
  return !allow_ || allow_(bytes) ? map_slot(bytes) : nullptr;
}

// Mapped with the reserve behind, which goes at once: no limit has to be read, and none is missed.
// Huge pages make the first touch of a large frame, and its release, several times cheaper; what
// they would not fill stays with small ones, so that no memory is held for nothing.
Slot* Slots::map_slot(size_t bytes) {
  const size_t slack = bytes >= kHugePage ? kHugePage : 0;
  const size_t length = bytes + slack + kProcessReserve;
  void* mapped = mmap(nullptr, length, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<uint8_t*>(mapped);
  uint8_t* data = begin;
  if (slack != 0) {
    data += -reinterpret_cast<uintptr_t>(begin) % kHugePage;
    madvise(data, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  }
  if (data != begin) munmap(begin, static_cast<size_t>(data - begin));
  munmap(data + bytes, length - static_cast<size_t>(data - begin) - bytes);
  return new Slot{data, bytes, 0};
}

void Slots::populate(Slot* slot) {
  if (madvise(slot->data, slot->capacity, MADV_POPULATE_WRITE) == 0) slot->touched = slot->capacity;
}

void Slots::unmap(Slot* slot) {
  munmap(slot->data, slot->capacity);
  delete slot;
}

}  // namespace loopback
