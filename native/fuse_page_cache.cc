// Page-cache mode: programs map our file itself, and their pages are the kernel's cached ones.
//
//   DQBUF:  the frame is copied into the region ─▶ NOTIFY_STORE ─▶ the program's pages ─▶ answer
//   QBUF:   NOTIFY_RETRIEVE ─▶ NOTIFY_REPLY: the program's pages ─▶ the region ─▶ the ring
//   fault:  READ without a lock owner  ◀─ the region
//   writeback: WRITE with FUSE_WRITE_CACHE ─▶ the region
//
// A page that is not cached was not written since it was written back: the region has it.
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include <algorithm>
#include <utility>

#include "fuse_session.h"

namespace loopback {

namespace {
constexpr size_t kPage = 4096;
constexpr size_t kPinnedStores = 4;
}  // namespace

// A store waits for a page that is under a fault, which only a session's thread can answer: so
// stores have a thread of their own.
void FuseSession::store(uint64_t node, std::shared_ptr<Window::Region> region, Bytes bytes,
                        std::function<void()> then) {
  // The session ends, and with it what waits for the answer.
  if (stores_ended_) return;
  // Not many wait: a pinned frame is memory beyond what the ring may hold.
  if (bytes.keeps == nullptr || stores_.size() >= kPinnedStores) {
    memcpy(region->data(), bytes.data, bytes.size);
    bytes.keeps.reset();
  }
  region->showing = true;
  stores_.push_back({node, std::move(region), std::move(bytes), std::move(then)});
  if (!store_thread_.joinable()) store_thread_ = std::thread([this] { store_pages(); });
  stores_changed_.notify_one();
}

void FuseSession::store_pages() {
  auto guard = lock();
  while (true) {
    if (stores_ended_) return;
    if (stores_.empty()) {
      stores_changed_.wait(guard);
      continue;
    }
    Store store = std::move(stores_.front());
    stores_.pop_front();
    guard.unlock();
    const size_t bytes = store.bytes.size;
    if (store.bytes.keeps != nullptr) memcpy(store.region->data(), store.bytes.data, bytes);
    store.bytes.keeps.reset();
    fuse_notify_store_out out{};
    out.nodeid = store.node;
    out.offset = store.region->offset();
    out.size = static_cast<uint32_t>(std::min(round_to_pages(bytes), store.region->length()));
    send(0, FUSE_NOTIFY_STORE, &out, sizeof out, store.region->data(), out.size);
    guard.lock();
    shown(store.node, store.region.get(), store.then);
  }
}

void FuseSession::end_stores() {
  {
    auto guard = lock();
    stores_ended_ = true;
  }
  stores_changed_.notify_all();
  if (store_thread_.joinable()) store_thread_.join();
}

void FuseSession::fetch(const Opener& opener, std::shared_ptr<Window::Region> region, size_t bytes,
                        std::function<void()> then) {
  if (io_mode_ != IoMode::kPageCache) return then();
  const uint64_t id = next_retrieval_++;
  retrievals_[id] = {opener.node, &opener, std::move(region), bytes, 0, std::move(then)};
  retrieve(id);
}

void FuseSession::retrieve(uint64_t id) {
  const Retrieval& wanted = retrievals_[id];
  fuse_notify_retrieve_out out{};
  out.notify_unique = id;
  out.nodeid = wanted.node;
  out.offset = wanted.region->offset() + wanted.done;
  out.size = static_cast<uint32_t>(
      std::min<size_t>(round_to_pages(wanted.bytes) - wanted.done, max_write_));
  send(0, FUSE_NOTIFY_RETRIEVE, &out, sizeof out);
}

// The kernel brings pages up to the first that is not cached.
void FuseSession::retrieved(const Incoming& in) {
  const auto found = retrievals_.find(in.header->unique);
  if (found == retrievals_.end()) return;
  Retrieval& wanted = found->second;
  for (const V4l2Device::Piece& piece : {in.first, in.rest}) {
    const size_t bytes = std::min(piece.size, wanted.region->length() - wanted.done);
    if (bytes > 0) memcpy(wanted.region->data() + wanted.done, piece.data, bytes);
    wanted.done += bytes;
  }
  const size_t brought = in.first.size + in.rest.size;
  const size_t asked =
      std::min<size_t>(round_to_pages(wanted.bytes) - (wanted.done - brought), max_write_);
  if (brought < asked) wanted.done = (wanted.done + kPage) / kPage * kPage;
  if (wanted.done < wanted.bytes) return retrieve(found->first);
  const std::function<void()> then = std::move(wanted.then);
  V4l2Device* device = nullptr;
  const auto node = nodes_.find(wanted.node);
  if (node != nodes_.end()) device = node->second.device;
  retrievals_.erase(found);
  then();
  if (device != nullptr) device->settle();
}

// A fault on a mapping; a read(2) brings the lock owner.
bool FuseSession::page_read(const Incoming& in) {
  const auto* read = reinterpret_cast<const fuse_read_in*>(in.body);
  if (io_mode_ != IoMode::kPageCache || (read->read_flags & FUSE_READ_LOCKOWNER) != 0) return false;
  const auto node = nodes_.find(in.header->nodeid);
  if (node == nodes_.end() || node->second.window == nullptr) {
    reply_error(request_of(in), EIO);
    return true;
  }
  std::vector<uint8_t> pages(read->size);
  node->second.window->read_at(read->offset, pages.data(), pages.size());
  reply(request_of(in), pages.data(), pages.size());
  return true;
}

bool FuseSession::page_write(const Incoming& in) {
  const auto* write = reinterpret_cast<const fuse_write_in*>(in.body);
  if ((write->write_flags & FUSE_WRITE_CACHE) == 0) return false;
  const auto node = nodes_.find(in.header->nodeid);
  if (node != nodes_.end() && node->second.window != nullptr) {
    Window& window = *node->second.window;
    window.write_at(write->offset, in.first.data, in.first.size);
    window.write_at(write->offset + in.first.size, in.rest.data, in.rest.size);
  }
  reply_written(request_of(in), write->size);
  return true;
}

}  // namespace loopback
