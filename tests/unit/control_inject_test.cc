/*
 * What the driver says where the kernel refuses to let it trace.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>

extern "C" {
int inject_has_shadow_stack(const char *status);
void inject_denied(const char *proc, pid_t pid, int error, char *why, size_t size);
}

namespace
{

/* A /proc with this ptrace_scope. */
std::string Denied(const std::string &scope, int error, uid_t user = geteuid())
{
	char folder[] = "/tmp/memtrace-proc-XXXXXX", why[512] = "";
	std::string proc = mkdtemp(folder);

	for (const char *part : { "/sys", "/sys/kernel", "/sys/kernel/yama" })
		mkdir((proc + part).c_str(), 0755);
	chmod(folder, 0755);
	std::ofstream(proc + "/sys/kernel/yama/ptrace_scope") << scope << "\n";
	if (user != geteuid()) {
		EXPECT_EQ(seteuid(user), 0);
	}
	inject_denied(proc.c_str(), getpid(), error, why, sizeof(why));
	if (getuid() != geteuid()) {
		EXPECT_EQ(seteuid(getuid()), 0);
	}
	unlink((proc + "/sys/kernel/yama/ptrace_scope").c_str());
	for (const char *part : { "/sys/kernel/yama", "/sys/kernel", "/sys", "" })
		rmdir((proc + part).c_str());
	return why;
}

TEST(InjectDenied, SaysWhatToDo)
{
	EXPECT_NE(Denied("3", EPERM).find("until it is restarted"), std::string::npos);
	EXPECT_NE(Denied("0", EPERM).find("--cap-add SYS_PTRACE"), std::string::npos);
	EXPECT_NE(Denied("0", ESRCH).find("has ended"), std::string::npos);
}

TEST(InjectDenied, NamesTheSettingToUsersWhoAreNotRoot)
{
	uid_t user = geteuid() ? geteuid() : 65534;
	std::string one = Denied("1", EPERM, user), two = Denied("2", EACCES, user);

	EXPECT_NE(one.find("kernel.yama.ptrace_scope=1"), std::string::npos) << one;
	EXPECT_NE(one.find("sudo sysctl kernel.yama.ptrace_scope=0"), std::string::npos) << one;
	EXPECT_NE(two.find("kernel.yama.ptrace_scope=2"), std::string::npos) << two;
}

TEST(InjectDenied, KnowsAShadowStackByTheThreadsFeatures)
{
	EXPECT_TRUE(inject_has_shadow_stack("Name:\tx\nx86_Thread_features:\tshstk wrss \n"
					    "x86_Thread_features_locked:\t\n"));
	EXPECT_FALSE(inject_has_shadow_stack("Name:\tx\nx86_Thread_features:\t\n"
					     "x86_Thread_features_locked:\tshstk wrss \n"));
	EXPECT_FALSE(inject_has_shadow_stack("Name:\tshstk\n"));
}

} // namespace
