// How a ring grows and shrinks, and what is done for it off the frame path.
#include <algorithm>

#include "ring_parties.h"

namespace loopback {

namespace {
// How often slots that nobody uses are looked for.
constexpr Nanoseconds kSweep = kSecond;
}  // namespace

uint64_t Ring::min_bytes() const {
  return min_written_ ? parameters_.min : 2 * round_to_pages(sizeimage_);
}

size_t Ring::largest_frame() const {
  std::lock_guard lock(mutex_);
  return parameters_.max / 2 / 4096 * 4096;
}

bool Ring::grow_to_fit(size_t needed, Nanoseconds now) {
  uint64_t target = size_;
  while (target < needed && target < parameters_.max) target *= 2;
  target = std::min(target, parameters_.max);
  if (target <= size_) return false;
  // A look at the memory is seldom: within a burst the housekeeper has looked ahead.
  const Nanoseconds before = monotonic_now();
  std::string limited_by;
  const bool promised = setup_.budget->promise(&budget_part_, target, now, &limited_by);
  commit_ns_ += monotonic_now() - before;
  if (!promised) {
    refuse_growth(target, limited_by);
    return false;
  }
  // As often as needed, and each doubling is one.
  while (size_ < target) set_size(std::min(size_ * 2, target), true, now);
  want_housekeeping();
  return true;
}

// The resize, and all of it.
void Ring::set_size(uint64_t size, bool expand, Nanoseconds now) {
  const Nanoseconds before = monotonic_now();
  const uint64_t from = size_;
  size_ = size;
  read_position_ %= size_;
  low_since_ = kNever;
  const uint64_t took = std::max<Nanoseconds>(monotonic_now() - before, 1);
  if (expand) {
    ++expand_count_;
    expand_ns_ += took;
    expand_ns_max_ = std::max(expand_ns_max_, took);
    last_expand_ = now;
  } else {
    ++shrink_count_;
    shrink_ns_ += took;
    shrink_ns_max_ = std::max(shrink_ns_max_, took);
    last_shrink_ = now;
  }
  emit(expand ? RingEvent::Kind::kGrown : RingEvent::Kind::kShrunk,
       std::string("buffer ") + (expand ? "grew" : "shrank") + " from " + std::to_string(from) +
           " to " + std::to_string(size_) + " bytes");
}

void Ring::refuse_growth(uint64_t wanted, const std::string& why) {
  mode_ = Mode::kHeld;
  emit(RingEvent::Kind::kRefused,
       "no memory to grow from " + std::to_string(size_) + " to " + std::to_string(wanted) +
           " bytes (" + why +
           "): dynamic buffering is off until it is written again, nothing was lost");
}

uint64_t Ring::nominal_size() const {
  return mode_ == Mode::kStatic ? parameters_.max_buffers * round_to_pages(sizeimage_) : size_;
}

void Ring::note_memory() {
  const uint64_t resident = slots_.resident();
  setup_.budget->set(&budget_part_, std::max(nominal_size(), resident), resident);
}

void Ring::note_usage(Nanoseconds now) {
  if (size_ > parameters_.max) {
    // More was held than a max that was written meanwhile: it is reached as that drains.
    size_ = std::max<uint64_t>(parameters_.max, used_ + claimed_);
    read_position_ %= size_;
  }
  note_memory();
  if (used_ * 100 > parameters_.low_watermark * size_) {
    low_since_ = kNever;
    return;
  }
  if (low_since_ == kNever) {
    low_since_ = now;
    low_peak_ = used_ + claimed_;
    if (mode_ == Mode::kDynamic && size_ > min_bytes()) want_housekeeping();
  }
  low_peak_ = std::max(low_peak_, used_ + claimed_);
}

void Ring::tick_locked(Nanoseconds now) {
  rest_idle_claims(now);
  publish_pending(now);
  note_usage(now);
  if (mode_ != Mode::kDynamic || low_since_ == kNever || size_ <= min_bytes()) return;
  if (now - low_since_ < parameters_.shrink_delay_ms * kMillisecond) return;
  const uint64_t target = std::max(size_ / 2, min_bytes());
  // Room that producers at work claimed meanwhile would have to be grown again at once.
  if (target >= low_peak_ && target < size_) set_size(target, false, now);
  low_since_ = now;
  low_peak_ = used_ + claimed_;
}

void Ring::tick(Nanoseconds now) {
  std::lock_guard lock(mutex_);
  tick_locked(now);
}

void Ring::want_housekeeping() {
  if (housekeeping_wanted_) return;
  housekeeping_wanted_ = true;
  if (setup_.wake_housekeeper) setup_.wake_housekeeper(this);
}

Nanoseconds Ring::housekeep(Nanoseconds now) {
  std::vector<Slot*> surplus;
  size_t prepare_bytes = 0;
  bool look = false;
  {
    std::lock_guard lock(mutex_);
    housekeeping_wanted_ = false;
    tick_locked(now);
    if (now - last_housekeeping_ >= kSweep) {
      last_housekeeping_ = now;
      const size_t held = used_ + claimed_;
      const size_t spare_room = mode_ == Mode::kStatic ? parameters_.max_buffers * sizeimage_
                                : size_ > held         ? size_ - held
                                                       : 0;
      surplus = slots_.surplus(spare_room);
      // With no producer nobody needs a warm slot.
      if (producers_.empty()) {
        for (Slot* slot : slots_.surplus(0)) surplus.push_back(slot);
      }
      for (Slot* slot : surplus) slots_.forget(slot);
    }
    note_memory();
    if (mode_ == Mode::kDynamic) {
      look = !setup_.budget->covers(budget_part_, std::min(size_ * 2, parameters_.max));
      // Growing: have a slot warm before its frame comes.
      if (last_expand_ != kNever && now - last_expand_ < kSecond && slots_.cached_count() == 0 &&
          newest_ != nullptr && fits(2 * newest_->room))
        prepare_bytes = newest_->room;
    }
  }
  const Nanoseconds before = monotonic_now();
  for (Slot* slot : surplus) Slots::unmap(slot);
  const Nanoseconds released = monotonic_now();
  Slot* prepared = nullptr;
  if (prepare_bytes != 0) prepared = slots_.map(prepare_bytes);
  if (prepared != nullptr) Slots::populate(prepared);
  if (look) setup_.budget->look(now);
  const Nanoseconds committed = monotonic_now();

  std::lock_guard lock(mutex_);
  if (!surplus.empty()) release_ns_ += released - before;
  if (prepared != nullptr || look) commit_ns_ += committed - released;
  if (prepared != nullptr) slots_.add(prepared);
  note_memory();
  Nanoseconds next = kNever;
  if (mode_ == Mode::kDynamic && size_ > min_bytes()) {
    next = (low_since_ == kNever ? now : low_since_) + parameters_.shrink_delay_ms * kMillisecond;
    next = std::max(next, now + kMillisecond);
  }
  if (slots_.cached_count() > (producers_.empty() ? 0u : 1u))
    next = std::min(next, std::max(last_housekeeping_ + kSweep, now + kMillisecond));
  if (!pending_.empty()) next = std::min(next, now + kSecond / 10);
  if (prepared != nullptr) next = now;
  return next;
}

RingParameters Ring::parameters() const {
  std::lock_guard lock(mutex_);
  RingParameters reported = parameters_;
  reported.dynamic = mode_ == Mode::kDynamic;
  reported.min = min_bytes();
  return reported;
}

std::string Ring::set_parameters(const RingParameters& wanted, bool dynamic_written,
                                 Nanoseconds now) {
  std::lock_guard lock(mutex_);
  RingParameters next = wanted;
  if (next.max == 0) next.max = parameters_.max;
  // What was reported of an unwritten min comes back unchanged: it goes on following the format.
  const bool min_written = next.min != 0 && (min_written_ || next.min != min_bytes());
  const uint64_t min = min_written ? next.min : 2 * round_to_pages(sizeimage_);
  const auto text = [](uint64_t value) { return std::to_string(value); };
  if (next.high_watermark < 1 || next.high_watermark > 100)
    return "the high watermark " + text(next.high_watermark) + " is not within 1 to 100 percent";
  if (next.low_watermark < 1 || next.low_watermark > next.high_watermark / 2)
    return "the low watermark " + text(next.low_watermark) +
           " is not within 1 and half the high watermark, " + text(next.high_watermark / 2) +
           " percent";
  if (min > next.max)
    return "the minimum of " + text(min) + " bytes is above the maximum of " + text(next.max) +
           " bytes";
  if (next.max_buffers < 1) return "max_buffers 0 is not at least 1";
  const bool was_dynamic = mode_ == Mode::kDynamic;
  parameters_ = next;
  min_written_ = min_written;
  if (!min_written) parameters_.min = 0;
  if (dynamic_written && (next.dynamic != was_dynamic || mode_ == Mode::kHeld)) {
    if (next.dynamic && mode_ == Mode::kStatic)
      size_ = std::min(std::max<uint64_t>(min, used_ + claimed_), parameters_.max);
    mode_ = next.dynamic ? Mode::kDynamic : Mode::kStatic;
    low_since_ = kNever;
  }
  // What is held stays: a smaller max is reached as it drains.
  size_ = std::max(size_, min);
  size_ = std::max<uint64_t>(std::min(size_, parameters_.max), used_ + claimed_);
  publish_pending(now);
  note_usage(now);
  want_housekeeping();
  return "";
}

void Ring::set_sizeimage(size_t bytes, Nanoseconds now) {
  std::lock_guard lock(mutex_);
  const uint64_t min_before = min_bytes();
  sizeimage_ = bytes;
  slots_.set_frame_bytes(bytes);
  const bool at_min = size_ == min_before;
  if (size_ < min_bytes() || (at_min && used_ + claimed_ <= min_bytes()))
    size_ = std::min(min_bytes(), parameters_.max);
  read_position_ %= size_;
  format_since_ = next_sequence_;
  advance();
  note_usage(now);
  want_housekeeping();
}

}  // namespace loopback
