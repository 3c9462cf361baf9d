// Whose name a trace may take: finished traces are set aside, live ones and strangers' files left.
// Every case runs in a child process, because a process has at most one trace.
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

extern "C" {
#include "out/file.h"
#include "out/place.h"
}

namespace fs = std::filesystem;

namespace {

struct Place : ::testing::Test {
	fs::path dir = fs::temp_directory_path() / ("place." + std::to_string(getpid()));

	void SetUp() override { fs::create_directory(dir); }
	void TearDown() override { fs::remove_all(dir); }
	std::string Path() const { return dir / "trace.bin"; }
};

// Exit status of a child that runs f.
int InChild(const std::function<int()> &f)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(f());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int Create(const std::string &path)
{
	int moved = -1;
	int err = mt_place_create(path.c_str(), &moved);

	return err ? -err : 100 + moved;
}

size_t Count(const fs::path &dir)
{
	size_t n = 0;

	for (auto &entry : fs::directory_iterator(dir))
		n += entry.is_regular_file();
	return n;
}

} // namespace

TEST_F(Place, ExpandsPidHostAndRankAndMakesThePathAbsolute)
{
	char out[4096];

	ASSERT_EQ(mt_place_expand("/x/%p-%r-%%-%q.bin", "7", out, sizeof(out)), 0);
	EXPECT_EQ(std::string(out), "/x/" + std::to_string(getpid()) + "-7-%-%q.bin");
	ASSERT_EQ(mt_place_expand("t.bin", "0", out, sizeof(out)), 0);
	EXPECT_EQ(std::string(out), (fs::current_path() / "t.bin").string());
	EXPECT_LT(mt_place_expand("t.bin", "0", out, 10), 0);
}

TEST_F(Place, FreeNameIsTakenWithMode0600)
{
	struct stat st;

	EXPECT_EQ(InChild([&] { return Create(Path()); }), 100);
	ASSERT_EQ(stat(Path().c_str(), &st), 0);
	EXPECT_EQ(st.st_mode & 07777, 0600u);
	EXPECT_EQ(Count(dir), 1u);
}

TEST_F(Place, FinishedTraceIsRenamed)
{
	EXPECT_EQ(InChild([&] { return Create(Path()); }), 100);
	EXPECT_EQ(InChild([&] { return Create(Path()); }), 100);
	EXPECT_TRUE(fs::exists(Path() + ".old"));
	EXPECT_EQ(Count(dir), 2u);
}

TEST_F(Place, LiveTraceIsNeverTouched)
{
	EXPECT_EQ(InChild([&] {
			  int mine = Create(Path());
			  struct stat before, after;

			  stat(Path().c_str(), &before);
			  int other = InChild([&] {
				  mt_file.header = nullptr; // a stranger: nothing inherited
				  return Create(Path());
			  });
			  stat(Path().c_str(), &after);
			  return mine == 100 && other == 101 && before.st_ino == after.st_ino ? 0 : 1;
		  }),
		  0);
	EXPECT_FALSE(fs::exists(Path() + ".old"));
	EXPECT_EQ(Count(dir), 2u);
}

TEST_F(Place, FileThatIsNoTraceIsLeftAlone)
{
	std::ofstream(Path()) << std::string(20000, 'x');
	EXPECT_EQ(InChild([&] { return Create(Path()); }), 101);
	EXPECT_EQ(fs::file_size(Path()), 20000u);
}

TEST_F(Place, SymbolicLinkIsNotFollowed)
{
	fs::path victim = dir / "victim";

	std::ofstream(victim) << "precious";
	fs::create_symlink(victim, Path());
	EXPECT_EQ(InChild([&] { return Create(Path()); }), 101);
	EXPECT_EQ(fs::file_size(victim), 8u);
	EXPECT_TRUE(fs::is_symlink(Path()));
}

TEST_F(Place, MissingFolderIsAnError)
{
	EXPECT_EQ(InChild([&] { return Create((dir / "no" / "trace.bin").string()); }), ENOENT);
}

TEST_F(Place, ManyNewcomersAtOnceEachGetATraceOfTheirOwn)
{
	const int kProcesses = 8;

	EXPECT_EQ(InChild([&] { return Create(Path()); }), 100); // a finished one lies there
	for (int i = 0; i < kProcesses; i++)
		if (fork() == 0) {
			int result = Create(Path());

			usleep(300000); // all are alive together
			_exit(result);
		}
	for (int i = 0; i < kProcesses; i++) {
		int status;

		wait(&status);
		EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) / 2 == 50);
	}
	EXPECT_EQ(Count(dir), kProcesses + 1u); // and the old one
}

TEST_F(Place, ClaimedUnitsNeverOverlapBetweenProcesses)
{
	EXPECT_EQ(InChild([&] {
			  if (Create(Path()) != 100)
				  return 1;
			  for (int c = 0; c < 4; c++)
				  if (fork() == 0) {
					  for (uint32_t i = 0; i < 500; i++) {
						  uint64_t offset, bytes;
						  void *map;
						  auto *p = static_cast<unsigned char *>(mt_file_claim(
							  1 + i % 7, &offset, &map, &bytes));

						  if (!p)
							  _exit(1);
						  for (size_t j = 0; j < (1 + i % 7) * MT_UNIT_BYTES; j++) {
							  if (p[j])
								  _exit(2); // somebody else's
							  p[j] = 1;
						  }
						  munmap(map, bytes);
					  }
					  _exit(0);
				  }
			  for (int c = 0; c < 4; c++) {
				  int status;

				  wait(&status);
				  if (status)
					  return 2;
			  }
			  return 0;
		  }),
		  0);
}
