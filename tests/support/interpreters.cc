// See interpreters.h.
//
// SPDX-License-Identifier: Apache-2.0
#include "support/interpreters.h"

#include <stdlib.h>

#include <algorithm>
#include <filesystem>

#include "support/harness.h"

namespace memtrace_test {

namespace fs = std::filesystem;

/* pyenv's newest of that version. */
static std::string OfPyenv(const std::string &version)
{
	const char *home = getenv("HOME");
	std::string found;
	std::error_code none;

	for (const auto &entry :
	     fs::directory_iterator(std::string(home ? home : "/root") + "/.pyenv/versions", none)) {
		std::string name = entry.path().filename().string();
		std::string program = entry.path().string() + "/bin/python" + version.substr(0, 1);

		if (name.rfind(version + ".", 0) == 0 && name.back() != 't' && Exists(program))
			found = std::max(found, program);
	}
	return found;
}

std::string InterpreterOf(const std::string &name)
{
	std::string path;

	if (name == "system")
		path = "/usr/bin/python3";
	else if (name == "venv")
		path = SourcePath("build/venv/bin/python");
	else if (name == "standalone")
		path = "/usr/lib/google-cloud-sdk/platform/bundledpythonunix/bin/python3";
	else
		path = OfPyenv(name);
	if (path.empty())
		path = SourcePath("build/pythons/usr/bin/python" + name);
	return Exists(path) ? path : "";
}

} // namespace memtrace_test
