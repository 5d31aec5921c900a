// What the entry points share: they return nullptr, or a message that the Rust side frees; no exception crosses.
#pragma once
#include <cstring>
#include <exception>

template <class F> char* guarded(F f) {
  try {
    f();
    return nullptr;
  } catch (const std::exception& e) {
    return strdup(e.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}
